package wsauth

import (
	"crypto/rand"
	"errors"
	"sync"
	"time"
)

// Verifier decides about tokens. [HS256] is one. The error of a refused token should be an [*Error]. VerifyAt
// must be safe for concurrent use and must not keep token.
type Verifier interface {
	VerifyAt(token []byte, now time.Time) (Identity, error)
}

// Rechecker is what a Verifier may also be, so that the end of an identity that it vouched for earlier reaches open
// sessions. [HS256] is one. StandsAt and EndsAt must be quick, safe for concurrent use, and must not call the Gate.
type Rechecker interface {
	// StandsAt is asked on every [Session.Authorize] whether id still stands, and reports the reason if not.
	StandsAt(id Identity, now time.Time) (Reason, bool)
	// EndsAt is when StandsAt will refuse id unless something changes before; the zero time is never.
	EndsAt(id Identity) time.Time
	// Watch registers changed, which is to be called whenever StandsAt or EndsAt may have begun to answer
	// differently, after they have, and without any lock that those take. It asks about every session that holds a
	// right, also those on which nobody says anything.
	Watch(changed func())
}

// OnExpiry is what becomes of a connection whose right has ended, because it expired or was revoked.
type OnExpiry int

// Choices of [Config].OnExpiry.
const (
	// OnExpiryView tells the peer {"status":"viewer"} and leaves the connection open. Another token of the same
	// device makes it a publisher again.
	OnExpiryView OnExpiry = iota
	// OnExpiryClose closes with 4401.
	OnExpiryClose
)

// OverLimit is what happens when a device authenticates once more than [Config].MaxSessions allows.
type OverLimit int

// Choices of [Config].OverLimit.
const (
	// OverLimitRefuse refuses the token like any other that is not good. A connection whose peer has vanished counts until
	// that is noticed, so a device that reconnects may have to try again.
	OverLimitRefuse OverLimit = iota
	// OverLimitReplace closes the device's oldest session with 4409. Two peers that share a token and reconnect
	// by themselves then take turns.
	OverLimitReplace
)

// Config says how a [Gate] works. Only Verifier is required.
type Config struct {
	// Verifier decides about tokens.
	Verifier Verifier
	// Audit receives every event, on the goroutine that caused it and without any lock held; it should not block.
	// Nil is silence; [AuditLog] makes lines of a log.
	Audit func(Event)
	// AnonymousLimit is the largest message in bytes before authentication; 0 means 4 KiB.
	AnonymousLimit int64
	// MessageLimit is the largest message in bytes after authentication; 0 means 64 KiB.
	MessageLimit int64
	// CloseTimeout bounds the end of a session: an answer that is still to be written, the close frame and the
	// wait for the peer's. After it the connection is aborted. 0 means 2 seconds.
	CloseTimeout time.Duration

	// OnExpiry is what becomes of a connection whose right has ended.
	OnExpiry OnExpiry
	// ExpiryWarning is how long before the end of its right a peer is told {"status":"expiring","expires_at":N}, at
	// most half of what the right lasts. 0 means 60 seconds, or a tenth of what the right lasts where that is less.
	ExpiryWarning time.Duration
	// MaxLifetime bounds how long a token is worth anything, counted from its "iat" (from its first use where "iat" is
	// in the future), whatever its "exp" says. Tokens without "iat" are then refused. 0 means no bound.
	MaxLifetime time.Duration

	// MaxSessions is how many sessions of one device may hold a right at the same time; 0 means any number.
	MaxSessions int
	// OverLimit is what happens beyond MaxSessions.
	OverLimit OverLimit
}

// ConfigError is one problem of a [Config], [HS256Config] or [Claims]. It never
// holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Verifier" or "HS256Config.Keys[1].Secret"
	Reason error  // a [ConfigReason]: a predicate such as "must not be negative"
}

func (e *ConfigError) Error() string { return "wsauth: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a configuration is refused, in this package and
// its subpackages. The set is closed. It is an error, so that [errors.Is] finds it.
type ConfigReason string

func (r ConfigReason) Error() string { return string(r) }

// Reasons for refusing a configuration.
const (
	ConfigMissing   ConfigReason = "is required"
	ConfigNegative  ConfigReason = "must not be negative"
	ConfigTooShort  ConfigReason = "is too short"
	ConfigTooLong   ConfigReason = "is too long"
	ConfigNotZero   ConfigReason = "must be zero"
	ConfigMalformed ConfigReason = "is malformed"
	ConfigDuplicate ConfigReason = "is a duplicate"
	ConfigUnknown   ConfigReason = "is not one of the choices"
)

// Gate attaches sessions to connections. It is safe for concurrent use.
type Gate struct {
	cfg     Config
	recheck Rechecker // nil if the Verifier is none
	prefix  string    // of session IDs, so that those of two processes differ

	// mu guards what follows and, of every Session, what says so. It is never held while a peer is written to or the
	// Audit is called.
	mu      sync.Mutex
	last    uint64                // the last session's number
	devices map[string][]*Session // those that hold a right, the longest-standing first
	revoked map[string]time.Time  // by device: tokens issued before are worth nothing
}

// New makes a Gate. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Gate, error) {
	var errs []error
	bad := func(field string, r ConfigReason) { errs = append(errs, &ConfigError{"Config." + field, r}) }
	if cfg.Verifier == nil {
		bad("Verifier", ConfigMissing)
	}
	if cfg.AnonymousLimit < 0 {
		bad("AnonymousLimit", ConfigNegative)
	}
	if cfg.MessageLimit < 0 {
		bad("MessageLimit", ConfigNegative)
	}
	if cfg.CloseTimeout < 0 {
		bad("CloseTimeout", ConfigNegative)
	}
	if cfg.OnExpiry < OnExpiryView || cfg.OnExpiry > OnExpiryClose {
		bad("OnExpiry", ConfigUnknown)
	}
	if cfg.ExpiryWarning < 0 {
		bad("ExpiryWarning", ConfigNegative)
	}
	if cfg.MaxLifetime < 0 {
		bad("MaxLifetime", ConfigNegative)
	}
	if cfg.MaxSessions < 0 {
		bad("MaxSessions", ConfigNegative)
	}
	if cfg.OverLimit < OverLimitRefuse || cfg.OverLimit > OverLimitReplace {
		bad("OverLimit", ConfigUnknown)
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
	g := &Gate{
		cfg: cfg, prefix: rand.Text()[:8] + "-",
		devices: make(map[string][]*Session), revoked: make(map[string]time.Time),
	}
	if r, ok := cfg.Verifier.(Rechecker); ok {
		g.recheck = r
		r.Watch(g.recheckAll)
	}
	return g, nil
}

// Attach begins a session on conn. It takes conn over: from now on the caller reads through [Session.Next] and ends
// the connection with [Session.Close], in every case and at the latest when Next has returned an error.
func (g *Gate) Attach(conn Conn, peer Peer) *Session {
	g.mu.Lock()
	g.last++
	s := &Session{gate: g, conn: conn, peer: peer, number: g.last}
	g.mu.Unlock()
	s.limit(g.cfg.AnonymousLimit)
	return s
}

// VerifyAt decides about a token as a session would: by the Verifier, [Config].MaxLifetime and what [Gate.Revoke] was
// told. So a Gate is a Verifier too, for requests that come on no session.
func (g *Gate) VerifyAt(token []byte, now time.Time) (Identity, error) {
	id, err := g.verify(token, now)
	if err != nil {
		return Identity{}, err
	}
	g.mu.Lock()
	revoked := g.isRevoked(&id)
	g.mu.Unlock()
	if revoked {
		return Identity{}, id.refused(ReasonRevoked)
	}
	return id, nil
}

func (g *Gate) verify(token []byte, now time.Time) (Identity, error) {
	id, err := g.cfg.Verifier.VerifyAt(token, now)
	if err != nil || g.cfg.MaxLifetime == 0 {
		return id, err
	}
	from := id.IssuedAt
	switch {
	case from.IsZero():
		return Identity{}, id.refused(ReasonClaims)
	case from.After(now):
		from = now
	}
	if end := from.Add(g.cfg.MaxLifetime); end.Before(id.ExpiresAt) {
		id.ExpiresAt = end
	}
	if !now.Before(id.ExpiresAt) {
		return Identity{}, id.refused(ReasonExpired)
	}
	return id, nil
}

// isRevoked needs mu. A token that does not say when it was issued counts as older than any.
func (g *Gate) isRevoked(id *Identity) bool {
	return id.IssuedAt.Before(g.revoked[id.Device])
}
