package main

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getsentry/sentry-go"
	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/envcheck"
)

// Bounds on sending errors to a tracker: its failure must cost the relay nothing.
const (
	trackerQueue = 30                     // events that wait; more are dropped
	trackerBurst = 20                     // events at once; more are dropped, and in the log only
	trackerEvery = 10 * time.Second       // the pace after that
	trackerWait  = 5 * time.Second        // for one answer
	trackerGrace = 750 * time.Millisecond // at the stop, beside those in serve.go still below five seconds
	maxReported  = 1024                   // bytes of an error's text
)

// tracker sends errors and panics to an error tracker that speaks Sentry's protocol.
// All that leaves is what scrubbed lets through. A nil tracker does nothing.
type tracker struct {
	client *sentry.Client
	pace   *rate.Limiter

	mu      sync.RWMutex
	secrets []string // every one that was in force
}

// newTracker returns a tracker as SENTRY_DSN says, which is nil where it says nothing.
func newTracker(cfg config) (*tracker, error) {
	if cfg.sentryDSN.IsZero() {
		return nil, nil
	}
	t := &tracker{pace: rate.NewLimiter(rate.Every(trackerEvery), trackerBurst)}
	t.protect(cfg)
	environment := "development"
	if cfg.production {
		environment = "production"
	}
	transport := sentry.NewHTTPTransport()
	transport.BufferSize = trackerQueue
	var err error
	t.client, err = sentry.NewClient(sentry.ClientOptions{
		Dsn: cfg.sentryDSN.Reveal(), Environment: environment, Transport: transport,
		HTTPClient: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
			Timeout:   trackerWait,
			// Events go where the operator has said, and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// They would add the host, the modules and the source's lines.
		Integrations:         func([]sentry.Integration) []sentry.Integration { return nil },
		BeforeSend:           func(e *sentry.Event, _ *sentry.EventHint) *sentry.Event { return t.scrubbed(e) },
		MaxBreadcrumbs:       -1,
		DisableClientReports: true,
	})
	return t, err
}

// parseDSN is the check of SENTRY_DSN. The value holds a key, so no error quotes it.
func parseDSN(s string) error {
	if _, err := sentry.NewDsn(s); err != nil {
		return envcheck.CheckReason("must be a DSN like https://KEY@HOST/PROJECT, as the error tracker shows it")
	}
	return nil
}

// protect has the secrets of cfg be no part of any event from now on.
func (t *tracker) protect(cfg config) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range []envcheck.Secret{cfg.secret, cfg.previous, cfg.historyKey, cfg.historyPrevious, cfg.sentryDSN} {
		if text := s.Reveal(); text != "" && !slices.Contains(t.secrets, text) {
			t.secrets = append(t.secrets, text)
		}
	}
}

// close gives what waits a moment to leave.
func (t *tracker) close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), trackerGrace)
	defer cancel()
	t.client.FlushWithContext(ctx)
	t.client.Close()
}

// handler returns a slog.Handler that writes to next and sends errors to t.
func (t *tracker) handler(next slog.Handler) slog.Handler {
	if t == nil {
		return next
	}
	return &errorHandler{Handler: next, to: t}
}

// send makes an event of an error. It does not block.
func (t *tracker) send(message string, attrs map[string]string) {
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

// scrubbed is a new event with that of e which may leave this machine: what went
// wrong and where in the code. Whatever the library or a later version of it adds
// stays here.
func (t *tracker) scrubbed(e *sentry.Event) *sentry.Event {
	clean := sentry.NewEvent()
	clean.EventID, clean.Timestamp, clean.Level, clean.Platform = e.EventID, e.Timestamp, e.Level, e.Platform
	clean.Environment, clean.Release = e.Environment, e.Release
	clean.Sdk = sentry.SdkInfo{Name: e.Sdk.Name, Version: e.Sdk.Version}
	clean.Message = t.clean(e.Message)
	if kind, ok := e.Tags["type"]; ok {
		clean.Tags = map[string]string{"type": t.clean(kind)}
	}
	for _, x := range e.Exception {
		x = sentry.Exception{Type: t.clean(x.Type), Value: t.clean(x.Value), Stacktrace: x.Stacktrace}
		if x.Stacktrace != nil {
			x.Stacktrace = &sentry.Stacktrace{Frames: places(x.Stacktrace.Frames)}
		}
		clean.Exception = append(clean.Exception, x)
	}
	return clean
}

// places are frames without variables, source and the paths of whoever built this,
// and without those of the way from the log to here.
func places(frames []sentry.Frame) (kept []sentry.Frame) {
	for _, f := range frames {
		if f.Module == "log/slog" || strings.HasPrefix(f.Function, "(*errorHandler)") || strings.HasPrefix(f.Function, "(*tracker)") {
			continue
		}
		file := f.AbsPath
		if file == "" {
			file = f.Filename
		}
		kept = append(kept, sentry.Frame{
			Function: f.Function, Module: f.Module, Filename: filepath.Base(file), Lineno: f.Lineno,
			InApp: f.Module == "main" || strings.HasPrefix(f.Module, "github.com/relayguard/"),
		})
	}
	return kept
}

// What an error's text may quote and an event must not. Go quotes what came from
// elsewhere, so no quotation leaves at all.
var unsaid = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`eyJ[A-Za-z0-9_.-]*|rgrt_[A-Za-z0-9_-]*`), "[token]"},
	{regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"?|`[^`]*`?"), "[text]"},
	{regexp.MustCompile(`[A-Za-z0-9_+=-]{32,}`), "[secret]"},
	{regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}`), "[addr]"},
	{regexp.MustCompile(`(?:[0-9A-Fa-f]{0,4}:){5,}[0-9A-Fa-f]*|[0-9A-Fa-f:]*::[0-9A-Fa-f:]*(?:%\w+)?`), "[addr]"},
	{regexp.MustCompile(`(^|[\s=:(\[,])/(?:[^\s/:,]+/)+`), "$1"}, // a path's directories
}

// clean is text without secrets, tokens, quotations, addresses and directories.
func (t *tracker) clean(text string) string {
	// A secret may be quoted or hold what else is replaced, so it comes first.
	t.mu.RLock()
	for _, s := range t.secrets {
		text = strings.ReplaceAll(text, s, "[secret]")
	}
	t.mu.RUnlock()
	for _, u := range unsaid {
		text = u.what.ReplaceAllString(text, u.as)
	}
	if len(text) > maxReported {
		text = strings.ToValidUTF8(text[:maxReported], "") + "…"
	}
	return text
}

// errorHandler sends records of errors on their way to the log.
type errorHandler struct {
	slog.Handler
	to      *tracker
	attrs   map[string]string // those that are sent, given by With
	grouped bool              // attributes are in a group, and none of ours
}

// sent are the attributes that an event is made of.
var sent = []string{"error", "type", "value"}

// Handle implements slog.Handler.
func (h *errorHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		attrs := make(map[string]string, len(sent))
		for name, value := range h.attrs {
			attrs[name] = value
		}
		if !h.grouped {
			r.Attrs(func(a slog.Attr) bool { return take(attrs, a) })
		}
		h.to.send(r.Message, attrs)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *errorHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &errorHandler{Handler: h.Handler.WithAttrs(attrs), to: h.to, attrs: make(map[string]string), grouped: h.grouped}
	for name, value := range h.attrs {
		with.attrs[name] = value
	}
	for _, a := range attrs {
		if !h.grouped {
			take(with.attrs, a)
		}
	}
	return with
}

// WithGroup implements slog.Handler.
func (h *errorHandler) WithGroup(name string) slog.Handler {
	return &errorHandler{Handler: h.Handler.WithGroup(name), to: h.to, attrs: h.attrs, grouped: h.grouped || name != ""}
}

func take(attrs map[string]string, a slog.Attr) bool {
	if slices.Contains(sent, a.Key) {
		attrs[a.Key] = a.Value.Resolve().String()
	}
	return true
}
