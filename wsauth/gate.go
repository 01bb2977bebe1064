package wsauth

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Verifier decides whether a token is valid. Package wsauth/jwtauth has one for
// JSON Web Tokens.
type Verifier interface {
	// Verify returns the identity in token if the token is valid at the time
	// now. The Gate refuses an empty token without asking, and an identity that
	// has no Subject or has expired. If Verify cannot decide, because a service
	// that it needs does not answer, its error is an [*UnavailableError]; the
	// error of a context is taken for one. Any other error refuses the token,
	// and should be an [*Error]. Verify must return when ctx ends, which it
	// does when the session ends. It must be safe for concurrent use and must
	// not keep token.
	Verify(ctx context.Context, token []byte, now time.Time) (Identity, error)
}

// Rechecker is an optional interface of a [Verifier]. With it, the end of an
// identity reaches the open sessions that authenticated with it. ValidAt and
// EndsAt must be fast and safe for concurrent use, and must not call the Gate.
type Rechecker interface {
	// ValidAt reports whether id, which Verify returned earlier, is still
	// valid at the time now, and the reason if not. Every [Session.Authorize]
	// calls it.
	ValidAt(id Identity, now time.Time) (Reason, bool)
	// EndsAt returns the time from which ValidAt will refuse id, if nothing
	// changes before. The zero time means never.
	EndsAt(id Identity) time.Time
	// Watch registers changed. Call changed after every change that may affect
	// the results of ValidAt or EndsAt, without holding a lock that these
	// methods take. changed then checks every authenticated session, including
	// those of clients that send nothing.
	Watch(changed func())
}

// OnExpiry is what a session does when its authentication ends, because it
// expired or was revoked.
type OnExpiry int

// Choices of [Config].OnExpiry.
const (
	// OnExpiryView sends {"status":"viewer"} to the client and leaves the
	// connection open. Another token of the same subject authenticates it
	// again.
	OnExpiryView OnExpiry = iota
	// OnExpiryClose closes the connection with the code 4401.
	OnExpiryClose
)

// OverLimit is what happens when a subject that has [Config].MaxSessions
// sessions authenticates once more.
type OverLimit int

// Choices of [Config].OverLimit.
const (
	// OverLimitRefuse refuses the new token with the same answer as an invalid
	// token. A connection whose client has vanished counts until the server
	// notices that, so a subject that reconnects may have to try again.
	OverLimitRefuse OverLimit = iota
	// OverLimitReplace closes the oldest session of the subject with the code
	// 4409. Two clients that share a token and reconnect automatically replace
	// each other again and again.
	OverLimitReplace
)

// Config configures a [Gate]. Only Verifier is required.
type Config struct {
	// Verifier decides whether a token is valid. It may be nil if Dialect is
	// [NoDialect] and sessions authenticate by [Gate.AttachIdentity] only.
	Verifier Verifier
	// Dialect is how tokens and answers look in the messages of a session. Nil
	// means [JSONDialect].
	Dialect Dialect
	// AuthTimeout is how long a client may stay connected without
	// authentication, both at the beginning and after its authentication has
	// ended. After it, the connection is closed with the code 4401, or with
	// 1013 if the Verifier is still deciding about a token. 0 means any time,
	// for services that anyone may watch.
	AuthTimeout time.Duration
	// ClientIP returns the address of the client of a request, for
	// [Gate.Authenticate] and [Gate.Peer]. If nil, [RemoteAddr] is used.
	ClientIP func(*http.Request) netip.Addr
	// Audit is called with every event, on the goroutine that caused the event
	// and without a lock held. It should not block. If nil, events are
	// discarded. [AuditLog] returns a function that logs them.
	Audit func(Event)
	// Barred, if set, is asked before a token is verified. If it returns true,
	// the token is refused with [ReasonBarred], like any other, and the client
	// may go on watching on another connection. Use it for addresses that have
	// sent too many wrong tokens; see [Reason.IsGuess]. It must be fast.
	Barred func(Peer) bool
	// AnonymousLimit is the maximum size of a message before authentication, in
	// bytes. 0 means 4 KiB.
	AnonymousLimit int64
	// MessageLimit is the maximum size of a message after authentication, in
	// bytes. 0 means 64 KiB.
	MessageLimit int64
	// CloseTimeout bounds the end of a session: sending a last answer and the
	// close frame, and waiting for the close frame of the client. After
	// CloseTimeout, the connection is aborted. 0 means 2 seconds.
	CloseTimeout time.Duration

	// OnExpiry is what a session does when its authentication ends.
	OnExpiry OnExpiry
	// ExpiryWarning is how long before the end of its authentication a client
	// receives {"status":"expiring","expires_at":N}. It is limited to half of
	// the duration of the authentication. 0 means 60 seconds, or a tenth of the
	// duration if that is less.
	ExpiryWarning time.Duration
	// MaxLifetime bounds how long a token is valid, whatever its "exp" says. It
	// counts from "iat", or from the first use if "iat" is in the future. If
	// MaxLifetime is set, tokens without "iat" are refused. 0 means no bound.
	MaxLifetime time.Duration

	// MaxSessions is how many sessions of one subject of an issuer may be
	// authenticated at the same time. 0 means any number.
	MaxSessions int
	// OverLimit is what happens beyond MaxSessions.
	OverLimit OverLimit

	// Shared makes several processes act as one; see [Gate.Run]. Nil means that
	// this process is alone.
	Shared Shared
	// MaxStale is how long the Gate may be out of touch with Shared and still
	// authorize. After that, it may lack a revocation, so [Session.Authorize]
	// returns an [*UnavailableError] until the revocations are loaded again.
	// MaxStale takes no permission away. It is at least 1 second, and 0 means
	// 10 seconds. It has no effect without Shared.
	MaxStale time.Duration
}

// ConfigError is one problem of a [Config] or of [Origins]. It never contains a
// value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.Verifier".
	Field string
	// Reason is a [ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "wsauth: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a configuration is refused, in this package
// and its subpackages. The set is closed. A ConfigReason is an error, so that
// [errors.Is] finds it in a ConfigError. Its text is a predicate, such as "is
// required".
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
	recheck Rechecker // nil if the Verifier is not a Rechecker
	prefix  string    // of session IDs, so that the IDs of two processes differ
	now     func() time.Time

	inTouch atomic.Pointer[time.Time] // as of when it knows what Shared does; written under mu

	// mu guards the fields below, and the fields of every Session that say so.
	// It is never held while a message is written or Audit is called.
	mu       sync.Mutex
	touched  chan struct{}         // closed at the next apply; nil before a call of news
	last     uint64                // the number of the last session
	subjects map[string][]*Session // the authenticated sessions, the oldest first
	revoked  map[string]time.Time  // by subject: tokens issued before are invalid
	joining  map[string]Reason     // sessions in Shared.Join, and why they must end again, if they must
}

// New returns a Gate. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Gate, error) {
	var errs []error
	bad := func(field string, r ConfigReason) { errs = append(errs, &ConfigError{"Config." + field, r}) }
	if cfg.Verifier == nil && cfg.Dialect != Dialect(NoDialect{}) {
		bad("Verifier", ConfigMissing)
	}
	if cfg.AuthTimeout < 0 {
		bad("AuthTimeout", ConfigNegative)
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
	switch {
	case cfg.MaxStale < 0:
		bad("MaxStale", ConfigNegative)
	case cfg.MaxStale == 0:
		cfg.MaxStale = 10 * time.Second
	case cfg.MaxStale < minStale:
		bad("MaxStale", ConfigTooShort)
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
	if cfg.Dialect == nil {
		cfg.Dialect = JSONDialect{}
	}
	if cfg.ClientIP == nil {
		cfg.ClientIP = RemoteAddr
	}
	if cfg.Audit == nil {
		cfg.Audit = func(Event) {}
	}
	g := &Gate{
		cfg: cfg, prefix: rand.Text()[:8] + "-", now: time.Now,
		subjects: make(map[string][]*Session), revoked: make(map[string]time.Time),
		joining: make(map[string]Reason),
	}
	if r, ok := cfg.Verifier.(Rechecker); ok {
		g.recheck = r
		r.Watch(g.recheckAll)
	}
	return g, nil
}

// Attach starts a session on conn. Its client authenticates with a message, if
// [Config].Dialect has one for that. From then on, read only with
// [Session.Next] or [Session.NextMessage]. Always end the connection with
// [Session.Close], at the latest when Next has returned an error. You may still
// write to conn.
func (g *Gate) Attach(conn Conn, peer Peer) *Session {
	s := &Session{gate: g, conn: conn, peer: peer}
	s.limit(g.cfg.AnonymousLimit)
	g.mu.Lock()
	g.last++
	s.number = g.last
	if g.cfg.AuthTimeout > 0 {
		s.begun = g.now()
		s.wake(min(g.cfg.AuthTimeout, maxWait))
	}
	g.mu.Unlock()
	return s
}

// Peer returns the Peer for a request, with the address of [Config].ClientIP.
func (g *Gate) Peer(r *http.Request) Peer { return Peer{Addr: g.cfg.ClientIP(r)} }

// AttachToken is [Gate.Attach] for a client that has sent its token with the
// handshake; see [TokenFrom]. The client gets the answer of an accepted token
// as its first message. If the token is not accepted, AttachToken answers and
// closes the connection as [Session.Next] does, and returns the same error. If
// the answer cannot be sent, for example because ctx has ended, AttachToken
// closes the connection with the code 1001.
func (g *Gate) AttachToken(ctx context.Context, conn Conn, peer Peer, token string) (*Session, error) {
	s := g.Attach(conn, peer)
	return s.entered(s.present(ctx, []byte(token)))
}

// AttachIdentity is [Gate.Attach] for a client that the caller has recognized:
// by its own login, or with [Gate.Authenticate]. The client gets the answer of
// an accepted token as its first message. [Gate.Revoke], [Config].MaxSessions
// and [Config].MaxLifetime apply, so IssuedAt should be the time of the login.
// If they refuse the identity, or it has no Subject or has expired,
// AttachIdentity closes the connection with the code 4401 and returns
// [ErrAuthenticationFailed]. If the answer cannot be sent, it does as
// [Gate.AttachToken].
//
// A [Rechecker] is asked about an identity of [Gate.Authenticate] or
// [Gate.Verify], and about one with a Handle, but not about others.
func (g *Gate) AttachIdentity(ctx context.Context, conn Conn, peer Peer, id Identity) (*Session, error) {
	s := g.Attach(conn, peer)
	now := g.now()
	id, err := g.bounded(id, now)
	if err != nil {
		return s.entered(s.refuse(err))
	}
	return s.entered(s.enter(ctx, id, id.Handle == nil && id.gate != g, now))
}

// entered returns s, or closes it if err is not nil.
func (s *Session) entered(err error) (*Session, error) {
	if err != nil {
		_ = s.Close(codeGoingAway, "") // refuse has closed it, unless the answer could not be sent
		return nil, err
	}
	return s, nil
}

// Authenticate verifies the token in a request that is not upgraded yet, or
// never will be. If it is not accepted, Authenticate answers the request and
// returns the error: 401 with WWW-Authenticate (RFC 6750, section 3) if there
// is no token or it is refused, and 503 with Retry-After if the Verifier or,
// after MaxStale, the Gate cannot decide. The answer is the same for every
// reason. A refused token is audited. Pass the identity to
// [Gate.AttachIdentity] after the upgrade. Without sources, the token comes
// from [FromBearer].
func (g *Gate) Authenticate(w http.ResponseWriter, r *http.Request, sources ...Source) (Identity, error) {
	id, err := g.fromRequest(r, sources)
	if err == nil {
		return id, nil
	}
	e := g.refusal(err, g.Peer(r))
	g.cfg.Audit(e)
	w.Header().Set("Cache-Control", "no-store")
	status := http.StatusUnauthorized
	switch {
	case e.Kind == EventUnavailable:
		w.Header().Set("Retry-After", "5")
		status = http.StatusServiceUnavailable
	case e.Reason == ReasonNoToken:
		w.Header().Set("WWW-Authenticate", "Bearer")
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	http.Error(w, http.StatusText(status), status)
	return Identity{}, err
}

func (g *Gate) fromRequest(r *http.Request, sources []Source) (Identity, error) {
	if len(sources) == 0 {
		sources = []Source{FromBearer}
	}
	token, ok := TokenFrom(r, sources...)
	switch {
	case !ok:
		return Identity{}, &Error{Reason: ReasonNoToken}
	case g.cfg.Barred != nil && g.cfg.Barred(g.Peer(r)):
		return Identity{}, &Error{Reason: ReasonBarred}
	}
	return g.Verify(r.Context(), []byte(token), g.now())
}

// Verify verifies token as a session does: with the Verifier,
// [Config].MaxLifetime and the revocations of [Gate.Revoke]. If
// [Config].MaxStale has passed, it cannot decide. So a Gate is a [Verifier]
// too, for requests outside of a session.
func (g *Gate) Verify(ctx context.Context, token []byte, now time.Time) (Identity, error) {
	id, err := g.verify(ctx, token, now)
	if err != nil {
		return Identity{}, err
	}
	g.mu.Lock()
	revoked := g.isRevoked(&id, now)
	g.mu.Unlock()
	switch {
	case revoked:
		return Identity{}, id.refused(ReasonRevoked)
	case g.stale():
		return Identity{}, &UnavailableError{Err: errStale}
	}
	return id, nil
}

func (g *Gate) verify(ctx context.Context, token []byte, now time.Time) (Identity, error) {
	switch {
	case g.cfg.Verifier == nil:
		return Identity{}, &Error{Reason: ReasonVerifier}
	case len(token) == 0:
		return Identity{}, &Error{Reason: ReasonMalformed}
	}
	id, err := g.cfg.Verifier.Verify(ctx, token, now)
	if err != nil {
		return Identity{}, undecided(err)
	}
	id.gate = g
	return g.bounded(id, now)
}

// undecided returns err as an [*UnavailableError] if it only says that a
// context has ended: no one has looked at the token.
func undecided(err error) error {
	_, refused := errors.AsType[*Error](err)
	_, unavailable := errors.AsType[*UnavailableError](err)
	if !refused && !unavailable && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return &UnavailableError{Err: err}
	}
	return err
}

// bounded returns id with [Config].MaxLifetime applied, if it has a Subject and
// has not expired.
func (g *Gate) bounded(id Identity, now time.Time) (Identity, error) {
	if id.Subject == "" {
		return Identity{}, id.refused(ReasonSubject)
	}
	if g.cfg.MaxLifetime > 0 {
		from := id.IssuedAt
		switch {
		case from.IsZero():
			return Identity{}, id.refused(ReasonClaims)
		case from.After(now):
			from = now
		}
		if end := from.Add(g.cfg.MaxLifetime); earlier(end, id.ExpiresAt) {
			id.ExpiresAt = end
		}
	}
	if expired(&id, now) {
		return Identity{}, id.refused(ReasonExpired)
	}
	return id, nil
}

// maxAhead is how far in the future a revocation, or the "iat" of a token of a
// revoked subject, may lie.
const maxAhead = time.Minute

// isRevoked needs mu. A token without "iat" counts as issued before any time.
func (g *Gate) isRevoked(id *Identity, now time.Time) bool {
	before, ok := g.revoked[id.Subject]
	return ok && (id.IssuedAt.Before(before) || id.IssuedAt.After(now.Add(maxAhead)))
}
