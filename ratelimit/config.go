package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Config sets the limits of a [Limiter]. The zero value allows each address ten
// connections a minute, and does not trust any proxy.
type Config struct {
	// Limit is the number of connections of one client that count in a window.
	// Default 10, at most 16,777,216.
	Limit int
	// Window is the length of the time window. Default one minute, at least one
	// millisecond, at most 366 days.
	Window time.Duration
	// MaxAttempts is the number of connections that a client may open in a
	// window, including those that have ended. Default 6×Limit, at least Limit.
	MaxAttempts int
	// MaxOpen is the number of connections that a client may hold open at once,
	// in whichever windows they began. Default 5×Limit, at least Limit.
	MaxOpen int
	// MaxKeys is the number of clients that the limiter knows one by one; see
	// the section Memory of the package. Default 1,000,000. That many clients
	// take about 40 MB, or 80 MB if all of them return in the next window.
	MaxKeys int

	// ClientIP returns the address of the client that sent the request; see
	// package clientip. If nil, it is the other end of the TCP connection. All
	// requests for which it returns the zero Addr count as one client.
	ClientIP func(*http.Request) netip.Addr

	// MaxTotal is the number of connections that all clients together may hold
	// open at once. Handler answers 503 beyond it. Each connection takes a file
	// descriptor, so stay below what the process may open (RLIMIT_NOFILE). If
	// zero, there is no such limit; at most 1,073,741,824.
	MaxTotal int
	// Process limits the admissions of all clients together. Several limiters
	// may share it. rate.NewLimiter(50, 100) allows 50 a second, and 100 at
	// once. It is asked last, so a connection that is refused for another
	// reason takes no token from it. If nil, there is no such limit.
	Process *rate.Limiter

	// Penalty blocks clients that fail too often. The zero value blocks no one.
	Penalty Penalty

	// DryRun makes the limiter decide and report, but refuse nothing.
	// Decision.Allowed is then always true, and Decision.Reason is the reason
	// for which the connection would have been refused. Such a connection does
	// not count.
	DryRun bool

	// ProblemJSON makes the body of a refusal application/problem+json (RFC
	// 9457) instead of plain text.
	ProblemJSON bool
	// Fields adds the RateLimit header fields of an IETF draft to the responses
	// of Handler. Default FieldsNone.
	Fields Fields

	// Observe, if set, is called by Handler with every decision, in the
	// goroutine of the request. Use it to count decisions.
	Observe func(*http.Request, Decision)
	// OnReject, if set, is called with some of the refusals by Handler, for a
	// log: with ten at once, then with one every RejectEvery, in the goroutine
	// of the request. suppressed is the number of refusals that were left out
	// since the previous call, only those of the same Decision.Client and
	// Decision.Reason. In a dry run, OnReject gets the decisions that would
	// have been refusals.
	//
	// If refusals were left out when a burst ends, OnReject is called once
	// more, with one of them and the number of the others: two RejectEvery
	// after the last, or after sixty RejectEvery if the burst goes on. This
	// call has a goroutine of its own, for as long as it takes, and r then has
	// no context, header or body. Such calls are limited like the others.
	//
	// The refusals of 256 clients are counted at a time. Those of others are
	// counted together, and told with Decision.Coarse and an invalid Client.
	OnReject func(r *http.Request, d Decision, suppressed uint64)
	// RejectEvery is the time between two calls of OnReject. Default one
	// second. If negative, OnReject gets every refusal.
	RejectEvery time.Duration
}

// Penalty blocks a client that fails several times within some time. The zero
// value blocks no one.
type Penalty struct {
	// Failures is the number of calls of [Limiter.Fail] that block a client. If
	// zero, no client is blocked, and the other fields must be zero too. At
	// most 16,777,216.
	Failures int
	// Within is the time within which the failures must occur. Default 10
	// minutes, at most 366 days.
	Within time.Duration
	// Block is the duration of the first block. Each further block lasts twice
	// as long as the one before. Default 10 minutes, at most 366 days.
	Block time.Duration
	// MaxBlock is the longest duration of a block. Default 24 hours or Block,
	// whichever is longer; at most 366 days. If MaxBlock has passed since the
	// end of a client's last block, its next block lasts for Block again.
	MaxBlock time.Duration
}

// ConfigError is one mistake in a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Penalty.Block"
	Reason error  // wraps a [ConfigReason]
}

func (e *ConfigError) Error() string { return "ratelimit: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It
// is an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigMissing  ConfigReason = "is required"
	ConfigTooSmall ConfigReason = "is too small"
	ConfigTooLarge ConfigReason = "is too large"
	ConfigUnknown  ConfigReason = "is not one of the choices"
)

func (r ConfigReason) Error() string { return string(r) }

const (
	defaultLimit   = 10
	defaultWindow  = time.Minute
	defaultMaxKeys = 1_000_000

	// maxLimit keeps all products and counters below 32 bits.
	maxLimit = 1 << 24
	minTime  = time.Millisecond
	maxTime  = 366 * 24 * time.Hour
)

// withDefaults returns c with the defaults in place of zero fields, or all
// mistakes, joined.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(field string, reason ConfigReason, bound string) {
		errs = append(errs, &ConfigError{Field: field, Reason: fmt.Errorf("%w: %s", reason, bound)})
	}
	count := func(field string, v *int, def, limit int) {
		if *v == 0 {
			*v = def
		}
		switch {
		case *v < 1:
			bad(field, ConfigTooSmall, "at least 1")
		case *v > limit:
			bad(field, ConfigTooLarge, fmt.Sprintf("at most %d", limit))
		}
	}
	span := func(field string, v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
		switch {
		case *v < minTime:
			bad(field, ConfigTooSmall, "at least "+minTime.String())
		case *v > maxTime:
			bad(field, ConfigTooLarge, "at most "+maxTime.String())
		}
	}

	count("Config.Limit", &c.Limit, defaultLimit, maxLimit)
	span("Config.Window", &c.Window, defaultWindow)
	if c.MaxTotal != 0 {
		count("Config.MaxTotal", &c.MaxTotal, 0, 1<<30)
	}
	sound := max(1, min(c.Limit, maxLimit))
	count("Config.MaxAttempts", &c.MaxAttempts, 6*sound, 6*maxLimit)
	count("Config.MaxOpen", &c.MaxOpen, 5*sound, 5*maxLimit)
	count("Config.MaxKeys", &c.MaxKeys, defaultMaxKeys, 1<<30)
	if c.MaxAttempts > 0 && c.MaxAttempts < sound {
		bad("Config.MaxAttempts", ConfigTooSmall, "at least Config.Limit, which would never apply otherwise")
	}
	if c.MaxOpen > 0 && c.MaxOpen < sound {
		bad("Config.MaxOpen", ConfigTooSmall, "at least Config.Limit, which would never apply otherwise")
	}
	if c.Fields < FieldsNone || c.Fields > FieldsDraft10 {
		bad("Config.Fields", ConfigUnknown, "FieldsNone, FieldsDraft06 or FieldsDraft10")
	}
	if c.RejectEvery == 0 {
		c.RejectEvery = time.Second
	}
	if c.ClientIP == nil {
		c.ClientIP = peer
	}

	p := &c.Penalty
	switch {
	case p.Failures == 0 && *p != (Penalty{}):
		bad("Penalty.Failures", ConfigMissing, "another field of the Penalty is set")
	case p.Failures != 0:
		count("Penalty.Failures", &p.Failures, 0, maxLimit)
		span("Penalty.Within", &p.Within, 10*time.Minute)
		span("Penalty.Block", &p.Block, 10*time.Minute)
		span("Penalty.MaxBlock", &p.MaxBlock, max(24*time.Hour, min(p.Block, maxTime)))
		if p.MaxBlock > 0 && p.MaxBlock < p.Block {
			bad("Penalty.MaxBlock", ConfigTooSmall, "at least Penalty.Block")
		}
	}
	return c, errors.Join(errs...)
}

// peer returns the address of the other end of the TCP connection.
func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
