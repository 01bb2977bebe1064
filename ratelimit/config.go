package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Config says what a [Limiter] allows. The zero value is usable: ten connections a minute for each address that
// connects directly.
type Config struct {
	// Limit is how many connections of one client are counted in a window. Default 10.
	Limit int
	// Window is how long a client's count lasts. Default one minute; at least a millisecond, at most 366 days.
	Window time.Duration
	// MaxAttempts is how many connections a client may open in a window, given back or not. Default 6×Limit; at least
	// Limit.
	MaxAttempts int
	// MaxOpen is how many connections a client may hold at once, across windows. Default 5×Limit; at least Limit.
	MaxOpen int
	// MaxKeys is how many clients are known one by one; see the package's section on memory. Default 1,000,000, which
	// takes some 40 MB when all are used, and 80 MB when all come back in the next window.
	MaxKeys int

	// ClientIP says which address a request comes from; see package clientip. Default: the peer of the TCP connection.
	// Requests for which it returns the zero Addr count as one client together.
	ClientIP func(*http.Request) netip.Addr

	// Process limits the admissions of all clients together, and may be shared between limiters. It is asked last, so
	// that what is refused for another reason uses none of it. Default: no such limit.
	Process *rate.Limiter

	// Penalty blocks clients that fail too often. Default: nobody is blocked by failing.
	Penalty Penalty

	// DryRun decides and reports, and refuses nobody: Decision.Allowed is always true, and Decision.Reason says what
	// would have happened. What would have been refused is not counted, as it would not have been.
	DryRun bool

	// ProblemJSON answers refusals with application/problem+json (RFC 9457) in place of plain text.
	ProblemJSON bool
	// Fields adds the IETF's RateLimit header fields to what Handler admits and refuses. Default: none.
	Fields Fields

	// Observe, if set, is called by Handler with every decision: the place to count. It runs in the request's goroutine.
	Observe func(*http.Request, Decision)
	// OnReject, if set, is called by Handler with refusals (in a dry run: would-be ones), thinned to be logged: ten at
	// once, then one each RejectEvery. Suppressed is how many were left out since the call before.
	OnReject func(r *http.Request, d Decision, suppressed uint64)
	// RejectEvery is the pace of OnReject. Default one second; negative: every refusal.
	RejectEvery time.Duration
}

// Penalty blocks a client after Failures failures within a time. The zero value blocks nobody.
type Penalty struct {
	// Failures is how many reports of [Limiter.Fail] block a client. Zero: none do.
	Failures int
	// Within is the time in which they must fall. Default 10 minutes.
	Within time.Duration
	// Block is how long the first block lasts; each further one lasts twice the one before. Default 10 minutes.
	Block time.Duration
	// MaxBlock is where doubling ends. Default 24 hours; at least Block. A client without failure for 2×MaxBlock
	// begins anew.
	MaxBlock time.Duration
}

// ConfigError is one problem of a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Limit" or "Penalty.Block"
	Reason error  // wraps a [ConfigReason]
}

func (e *ConfigError) Error() string { return "ratelimit: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It is an error, so that [errors.Is] finds it.
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

	// maxLimit keeps every product and counter below 32 bits.
	maxLimit = 1 << 24
	minTime  = time.Millisecond
	maxTime  = 366 * 24 * time.Hour
)

// withDefaults returns c with every zero field replaced by what it means, and all problems joined.
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
	sound := max(1, min(c.Limit, maxLimit))
	count("Config.MaxAttempts", &c.MaxAttempts, 6*sound, 6*maxLimit)
	count("Config.MaxOpen", &c.MaxOpen, 5*sound, 5*maxLimit)
	count("Config.MaxKeys", &c.MaxKeys, defaultMaxKeys, 1<<30)
	if c.MaxAttempts > 0 && c.MaxAttempts < sound {
		bad("Config.MaxAttempts", ConfigTooSmall, "below Config.Limit, which could then never be reached")
	}
	if c.MaxOpen > 0 && c.MaxOpen < sound {
		bad("Config.MaxOpen", ConfigTooSmall, "below Config.Limit, which could then never be reached")
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
			bad("Penalty.MaxBlock", ConfigTooSmall, "below Penalty.Block")
		}
	}
	return c, errors.Join(errs...)
}

// peer is the address of the TCP connection's other end.
func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
