package ratelimit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"golang.org/x/time/rate"
)

// Config sets the limits of a [Limiter]. The zero value allows each address ten
// connections a minute, and does not trust any proxy.
type Config struct {
	// Name is the name of the limits in the header fields: letters, digits and
	// any of - _ . only. Default "client". If several limiters apply to one
	// response, give each a name of its own.
	Name string
	// Count says what the limits count. Default CountConnections.
	Count Count
	// Limit is the number of connections, or requests, of one client that count
	// in a window. Default 10, at most 16,777,216.
	Limit int
	// Window is the length of the time window. Default one minute, at least one
	// millisecond, at most 366 days.
	Window time.Duration
	// MaxAttempts is the number of connections that a client may open in a
	// window, including those that have ended. Default 6×Limit, at least Limit.
	// With CountRequests, Limit says this already.
	MaxAttempts int
	// MaxOpen is the number of connections that a client may hold open at once,
	// in whichever windows they began, or of requests that are served at once.
	// Default 5×Limit, at least Limit.
	MaxOpen int
	// MaxKeys is the number of clients that the limiter knows one by one; see
	// the section Memory of the package. Default 1,000,000. That many clients
	// take at most 64 MB.
	MaxKeys int

	// ClientIP returns the address of the client that sent the request; see
	// package clientip. If nil, it is the other end of the TCP connection. All
	// requests for which it returns the zero Addr count as one client.
	ClientIP func(*http.Request) netip.Addr
	// Key returns what a request counts by, such as the account that it is
	// for. If Key is nil, reports false or returns the zero Key, the request
	// counts by its address.
	//
	// Return an ID only after you have checked it, or if another limiter counts
	// the same requests by address (see All). Otherwise a client that invents a
	// new one for each request has no limit. Report false for a request whose
	// ID is missing or wrong. Key runs before the request is admitted, so if it
	// reads the body, bound the body, such as with http.MaxBytesHandler.
	Key func(*http.Request) (Key, bool)
	// PrefixV4 and PrefixV6 are the lengths of the networks that count as one
	// client, in bits. Default 32 and 64. PrefixV4 is at least 8 and at most
	// 32, PrefixV6 at least 16 and at most 64: a subscriber often has a /56 or
	// a /48, and could otherwise count as many clients.
	PrefixV4, PrefixV6 int
	// Networks gives networks a limit of their own in place of Limit, such as
	// an office or a venue whose visitors share an address. All of such a
	// network counts as one client, with MaxAttempts and MaxOpen in the same
	// proportion. A negative limit is none; MaxTotal and Process still apply.
	// The longest prefix that holds an address counts. Penalties still apply to
	// single clients, and requests with a Key.ID count by that.
	Networks map[netip.Prefix]int
	// Skip, if set, reports that Handler must pass the request on: it is not
	// limited, blocked, counted or observed. Skip must not believe what any
	// client can send.
	Skip func(*http.Request) bool

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

	// Shared makes several processes count their clients together; see the
	// section Nodes of the package. If nil, this process counts alone.
	Shared Shared
	// OnShared, if set, is called with each block, penalty and end of one that
	// another process has made, after it is in force here, one at a time. Use
	// it to end open connections of a blocked network: a block does not. It may
	// call the Limiter, but not Block, Unblock, Fail or Forgive.
	OnShared func(SharedChange)

	// DryRun makes the limiter decide and report, but refuse nothing.
	// Decision.Allowed is then always true, and Decision.Reason is the reason
	// for which the connection would have been refused. Such a connection does
	// not count.
	DryRun bool

	// Body, if set, returns the body of a refusal and its Content-Type. It must
	// not tell the client more than it may know: Decision has the reason.
	Body func(*http.Request, Decision) (contentType, body string)
	// ProblemJSON makes the body of a refusal application/problem+json (RFC
	// 9457) instead of plain text. Body goes first.
	ProblemJSON bool
	// Fields adds the header fields RateLimit and RateLimit-Policy to the
	// responses of Handler. They are a draft of the IETF, whose versions use
	// different names and forms, so Fields is the number of the version that
	// you want: 11 for draft-ietf-httpapi-ratelimit-headers-11. That is the
	// only one today. If zero, there are no fields.
	Fields int

	// Observe, if set, is called by Handler with every decision, in the
	// goroutine of the request. Use it to count decisions.
	Observe func(*http.Request, Decision)
	// OnReject, if set, is called with some of the refusals by Handler, for a
	// log: with ten at once, then with one every RejectEvery, in the goroutine
	// of the request. suppressed is the number of refusals that were left out
	// since the previous call, only those of the same Decision.Client, Key.ID
	// and Decision.Reason. In a dry run, OnReject gets the decisions that would
	// have been refusals.
	//
	// If refusals were left out when a burst ends, OnReject is called once
	// more, with one of them and the number of the others: two RejectEvery
	// after the last, or after sixty RejectEvery if the burst goes on. This
	// call has a goroutine of its own, for as long as it takes, and r then has
	// no context, header or body, and of each text the first 1,024 bytes. Such
	// calls are limited like the others.
	//
	// The refusals of 256 clients are counted at a time. Those of others are
	// counted together, and told with Decision.Coarse and an invalid Client.
	OnReject func(r *http.Request, d Decision, suppressed uint64)
	// RejectEvery is the time between two calls of OnReject. Default one
	// second. If negative, OnReject gets every refusal.
	RejectEvery time.Duration
}

// Count is what the limits of a [Config] count.
type Count int

// The things that can be counted.
const (
	// CountConnections counts connections that stay open, such as WebSockets: a
	// connection that has ended no longer counts against Limit.
	CountConnections Count = iota
	// CountRequests counts ordinary requests: one that is finished still counts
	// against Limit until its window ends.
	CountRequests
)

// Penalty blocks a client that fails several times within some time. The zero
// value blocks no one.
type Penalty struct {
	// Failures is the number of calls of [Limiter.Fail] that block a key. If
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
	ConfigMissing   ConfigReason = "is required"
	ConfigTooSmall  ConfigReason = "is too small"
	ConfigTooLarge  ConfigReason = "is too large"
	ConfigUnknown   ConfigReason = "is not one of the choices"
	ConfigMalformed ConfigReason = "is malformed"
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
	bits := func(field string, v *int, def, low int) {
		count(field, v, def, def)
		if *v > 0 && *v < low {
			bad(field, ConfigTooSmall, fmt.Sprintf("at least %d", low))
		}
	}
	bits("Config.PrefixV4", &c.PrefixV4, defaultV4, 8)
	bits("Config.PrefixV6", &c.PrefixV6, defaultV6, 16)
	seen := make(map[netip.Prefix]bool)
	for p, limit := range c.Networks {
		same := FoldPrefix(p)
		switch {
		case !p.IsValid():
			bad("Config.Networks", ConfigMalformed, "not a valid prefix")
		case seen[same]:
			bad("Config.Networks", ConfigMalformed, "two of them are the same network")
		case limit == 0:
			bad("Config.Networks", ConfigMissing, "each network needs a limit, or a negative number for none")
		case limit > maxLimit:
			bad("Config.Networks", ConfigTooLarge, fmt.Sprintf("at most %d", maxLimit))
		}
		seen[same] = true
	}
	if c.Name == "" {
		c.Name = "client"
	}
	if strings.ContainsFunc(c.Name, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
	}) {
		bad("Config.Name", ConfigMalformed, "letters, digits, and - _ . only")
	}
	if c.Count != CountConnections && c.Count != CountRequests {
		bad("Config.Count", ConfigUnknown, "CountConnections or CountRequests")
	}
	if c.Fields != 0 && c.Fields != 11 {
		bad("Config.Fields", ConfigUnknown, "0 or 11")
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
