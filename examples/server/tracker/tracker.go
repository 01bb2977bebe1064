// Package tracker sends errors and panics to an error tracker, without data
// that must not leave the machine.
package tracker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/getsentry/sentry-go"
	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// Bounds on sending errors to a tracker: a failure of the tracker must not cost
// the relay anything.
const (
	queue       = 30                     // waiting events; more are dropped
	burst       = 20                     // events at once; more are dropped, and in the log only
	every       = 10 * time.Second       // between two events after a burst
	answerWait  = 5 * time.Second        // for one answer
	closeGrace  = 750 * time.Millisecond // when the server stops; with the bounds in package site less than five seconds
	maxReported = 1024                   // bytes of an error's text
)

// Config configures a [Tracker].
type Config struct {
	DSN         string   // https://KEY@HOST/PROJECT, as the error tracker shows it; if empty, nothing is sent
	Environment string   // under which the tracker files the events
	Secrets     []string // see [Tracker.Protect]; DSN is one too
}

// Tracker sends errors and panics to an error tracker that speaks Sentry's
// protocol. Only the data that scrubbed keeps leaves the machine. A nil Tracker
// does nothing.
type Tracker struct {
	client *sentry.Client
	pace   *rate.Limiter

	machine *regexp.Regexp // the machine's own name; nil if it has none

	mu      sync.RWMutex
	secrets []string // all that were ever passed to Protect
}

// New returns a Tracker, which is nil if there is no DSN.
func New(cfg Config) (*Tracker, error) {
	if cfg.DSN == "" {
		return nil, nil
	}
	t := &Tracker{pace: rate.NewLimiter(rate.Every(every), burst)}
	if name, err := os.Hostname(); err == nil && name != "" {
		t.machine = regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(name) + `\b`)
	}
	t.Protect(append(cfg.Secrets, cfg.DSN)...)
	transport := sentry.NewHTTPTransport()
	transport.BufferSize = queue
	var err error
	t.client, err = sentry.NewClient(sentry.ClientOptions{
		Dsn: cfg.DSN, Environment: cfg.Environment, Transport: transport,
		HTTPClient: client.New(&http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			Timeout:   answerWait,
		}),
		// The integrations would add the host, the modules and the source's
		// lines.
		Integrations:         func([]sentry.Integration) []sentry.Integration { return nil },
		BeforeSend:           func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return t.scrubbed(e) },
		MaxBreadcrumbs:       -1,
		DisableClientReports: true,
	})
	return t, err
}

// CheckDSN returns an error if s is not valid as a [Config]'s DSN. A DSN holds
// a key, so the error does not quote s.
func CheckDSN(s string) error {
	if _, err := sentry.NewDsn(s); err != nil {
		return errors.New("must be a DSN like https://KEY@HOST/PROJECT, as the error tracker shows it")
	}
	return nil
}

// Protect keeps secrets out of every event from now on. Empty secrets are
// ignored.
func (t *Tracker) Protect(secrets ...string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range secrets {
		if s != "" && !slices.Contains(t.secrets, s) {
			t.secrets = append(t.secrets, s)
		}
	}
}

// Close sends the waiting events for up to 750 ms, and drops the rest.
func (t *Tracker) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	t.client.FlushWithContext(ctx)
	t.client.Close()
}

// Handler returns a slog.Handler that writes to next and sends errors to t.
func (t *Tracker) Handler(next slog.Handler) slog.Handler {
	if t == nil {
		return next
	}
	return &handler{Handler: next, to: t}
}

// Send sends an event for an error, unless the pace is exceeded. It does not
// block.
func (t *Tracker) Send(message string, attrs map[string]string) {
	if t == nil || !t.pace.Allow() {
		return
	}
	e := sentry.NewEvent()
	e.Level, e.Message = sentry.LevelError, message
	e.Exception = []sentry.Exception{{Type: message, Value: attrs["error"] + attrs["value"], Stacktrace: sentry.NewStacktrace()}}
	if kind := attrs["type"]; kind != "" {
		e.Tags = map[string]string{"type": kind}
	}
	t.client.CaptureEvent(e, nil, nil)
}
