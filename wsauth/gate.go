package wsauth

import (
	"errors"
	"time"
)

// Verifier decides about tokens. [HS256] is one. The error of a refused token should be a [*RefusedError]. VerifyAt
// must be safe for concurrent use and must not keep token.
type Verifier interface {
	VerifyAt(token []byte, now time.Time) (Identity, error)
}

// Rechecker is what a Verifier may also be: StandsAt is asked on every [Session.Authorize] whether an identity that
// it vouched for earlier still stands, and reports the reason if not. It must be quick and safe for concurrent use.
type Rechecker interface {
	StandsAt(id Identity, now time.Time) (Reason, bool)
}

// Config says how a [Gate] works. Only Verifier is required.
type Config struct {
	// Verifier decides about tokens.
	Verifier Verifier
	// Audit receives every event, on the goroutine that caused it; it should not block. Nil is silence.
	Audit func(Event)
	// AnonymousLimit is the largest message in bytes before authentication; 0 means 4 KiB.
	AnonymousLimit int64
	// MessageLimit is the largest message in bytes after authentication; 0 means 64 KiB.
	MessageLimit int64
	// CloseTimeout bounds the end of a session: an answer that is still to be written, the close frame and the
	// wait for the peer's. After it the connection is aborted. 0 means 2 seconds.
	CloseTimeout time.Duration
}

// Problem is what is wrong with a field of a configuration. The set is closed.
type Problem string

// Problems.
const (
	ProblemMissing   Problem = "missing"
	ProblemNegative  Problem = "negative"
	ProblemTooShort  Problem = "too short"
	ProblemTooLong   Problem = "too long"
	ProblemTooMany   Problem = "too many"
	ProblemDuplicate Problem = "duplicate"
	ProblemFormat    Problem = "bad format"
)

// ConfigError is one problem of a [Config], [HS256Config] or [Claims]. It never holds a value.
type ConfigError struct {
	Field   string
	Problem Problem
}

func (e *ConfigError) Error() string { return "wsauth: " + e.Field + ": " + string(e.Problem) }

// Gate attaches sessions to connections. It is safe for concurrent use.
type Gate struct {
	cfg     Config
	recheck Rechecker
}

// New makes a Gate. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Gate, error) {
	var errs []error
	bad := func(field string, p Problem) { errs = append(errs, &ConfigError{field, p}) }
	if cfg.Verifier == nil {
		bad("Verifier", ProblemMissing)
	}
	if cfg.AnonymousLimit < 0 {
		bad("AnonymousLimit", ProblemNegative)
	}
	if cfg.MessageLimit < 0 {
		bad("MessageLimit", ProblemNegative)
	}
	if cfg.CloseTimeout < 0 {
		bad("CloseTimeout", ProblemNegative)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if cfg.AnonymousLimit == 0 {
		cfg.AnonymousLimit = 4 << 10
	}
	if cfg.MessageLimit == 0 {
		cfg.MessageLimit = 64 << 10
	}
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = 2 * time.Second
	}
	if cfg.Audit == nil {
		cfg.Audit = func(Event) {}
	}
	recheck, _ := cfg.Verifier.(Rechecker)
	return &Gate{cfg: cfg, recheck: recheck}, nil
}

// Attach begins a session on conn. It takes conn over: from now on the caller reads through [Session.Next] and ends
// the connection with [Session.Close], in every case and at the latest when Next has returned an error.
func (g *Gate) Attach(conn Conn, peer Peer) *Session {
	s := &Session{gate: g, conn: conn, peer: peer}
	s.limit(g.cfg.AnonymousLimit)
	return s
}
