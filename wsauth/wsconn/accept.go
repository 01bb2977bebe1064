package wsconn

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/hijack"
)

// Config configures an [Upgrader]. The zero value is ready to use.
type Config struct {
	// Origins decides which pages may connect. Its zero value accepts only
	// pages of the same origin.
	Origins wsauth.Origins
	// WriteTimeout is how long a write may wait without progress. 0 means 10
	// seconds.
	WriteTimeout time.Duration
	// CloseGrace is how long to wait for the client's answer to a close frame.
	// 0 means 1 second.
	CloseGrace time.Duration
	// PingInterval is the time between pings. The first comes earlier if many
	// clients have connected at once. 0 means 30 seconds.
	PingInterval time.Duration
	// PongTimeout is how long after a ping the client may send nothing. Times
	// are counted in ticks: a tenth of this, or of PingInterval if that is
	// shorter, but at least a millisecond. 0 means 10 seconds.
	PongTimeout time.Duration
	// Audit is called with a [wsauth.EventOriginRefused] for every request
	// whose origin is refused, before the answer. It should not block. If nil,
	// the events are discarded.
	Audit func(wsauth.Event)
	// ClientIP returns the address of the client of a request, for the audit.
	// If nil, [wsauth.RemoteAddr] is used.
	ClientIP func(*http.Request) netip.Addr
	// SendBuffer asks the operating system for a send buffer of this many bytes
	// for each connection, TCP or Unix socket. It limits the data that waits
	// for a client that does not read. With a small buffer, data for a slow
	// client stays in your program, which can merge or drop it. 0 leaves the
	// size to the system; Linux may use 4 MiB for each connection.
	SendBuffer int
	// ReadLimit is the maximum size of a message in bytes, until
	// [Conn.SetReadLimit] is called. 0 means 4 KiB.
	ReadLimit int64
	// Subprotocols are the subprotocols of the server (RFC 6455, section 1.9),
	// the preferred one first. The first one that the client offers, in the
	// same letters, is sent with the 101; [Conn.Subprotocol] returns it. If the
	// client offers none of them, none is sent, and a browser that has offered
	// others closes the connection.
	Subprotocols []string
	// Compress decides whether a client that offers permessage-deflate (RFC
	// 7692) gets frames of [NewCompressedFrame] compressed. If nil, none does.
	// It is called for each request that Accept upgrades.
	//
	// Such a client may compress what it sends, and browsers compress all of
	// it. [Conn.SetReadLimit] then limits what comes out. Neither side keeps
	// anything of a message for the next one, so compression takes no memory
	// for each connection. Some versions of Safari fail with it (13.1, and 15.0
	// to 15.3), so look at the User-Agent.
	Compress func(*http.Request) bool
}

// ConfigError is one problem of a [Config]. It never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.WriteTimeout".
	Field string
	// Reason is a [wsauth.ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "wsconn: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Upgrader turns HTTP requests into WebSocket connections. It is safe for
// concurrent use.
type Upgrader struct{ cfg settings }

// settings is what the connections of an Upgrader share.
type settings struct {
	Config
	wheel wheel
}

// New returns an Upgrader. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Upgrader, error) {
	var errs []error
	positive := func(field string, d *time.Duration, standard time.Duration) {
		if *d < 0 {
			errs = append(errs, &ConfigError{"Config." + field, wsauth.ConfigNegative})
		}
		if *d == 0 {
			*d = standard
		}
	}
	positive("WriteTimeout", &cfg.WriteTimeout, 10*time.Second)
	positive("CloseGrace", &cfg.CloseGrace, time.Second)
	positive("PingInterval", &cfg.PingInterval, 30*time.Second)
	positive("PongTimeout", &cfg.PongTimeout, 10*time.Second)
	if cfg.SendBuffer < 0 {
		errs = append(errs, &ConfigError{"Config.SendBuffer", wsauth.ConfigNegative})
	}
	if cfg.ReadLimit < 0 {
		errs = append(errs, &ConfigError{"Config.ReadLimit", wsauth.ConfigNegative})
	}
	if cfg.ReadLimit == 0 {
		cfg.ReadLimit = 4 << 10
	}
	if joined, ok := cfg.Origins.Validate().(interface{ Unwrap() []error }); ok {
		errs = append(errs, joined.Unwrap()...)
	}
	for i, p := range cfg.Subprotocols {
		field := fmt.Sprintf("Config.Subprotocols[%d]", i)
		switch {
		case p == "" || strings.Trim(p, tokenLetters) != "":
			errs = append(errs, &ConfigError{field, wsauth.ConfigMalformed})
		case slices.Contains(cfg.Subprotocols[:i], p):
			errs = append(errs, &ConfigError{field, wsauth.ConfigDuplicate})
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	cfg.Subprotocols = slices.Clone(cfg.Subprotocols)
	if cfg.Audit == nil {
		cfg.Audit = func(wsauth.Event) {}
	}
	if cfg.ClientIP == nil {
		cfg.ClientIP = wsauth.RemoteAddr
	}
	return &Upgrader{settings{Config: cfg, wheel: wheel{grain: grainOf(&cfg)}}}, nil
}

// UpgradeError says why a request was not upgraded, and with which status it
// was answered.
type UpgradeError struct {
	Status int   // the HTTP status that was sent
	Err    error // a [*wsauth.OriginError] if Status is 403; may be nil otherwise
}

func (e *UpgradeError) Error() string {
	text := "wsconn: refused with " + http.StatusText(e.Status)
	if e.Err != nil {
		text += ": " + strings.TrimPrefix(e.Err.Error(), "wsconn: ")
	}
	return text
}

func (e *UpgradeError) Unwrap() error { return e.Err }

// Screen answers the request r, and returns an [*UpgradeError], if it does not
// ask for a WebSocket or comes from a foreign page: 405, 426 or 403, as Accept
// does. Otherwise it returns nil and writes nothing.
//
// Any page can make the browser of a visitor send such requests, with the
// visitor's address. So call Screen before a rate limiter counts the request,
// or a foreign page can use up the attempts of its visitors. Screen reads only
// headers.
func (u *Upgrader) Screen(w http.ResponseWriter, r *http.Request) error {
	if status, err := u.screen(r); status != 0 {
		return u.refuse(w, r, status, err)
	}
	return nil
}

// Accept upgrades the request r to a WebSocket connection. Headers that you
// have set on w are sent with the 101. If Accept returns an error, an
// [*UpgradeError], it has answered the request, with the text of the status:
//
//	405  the method is not GET
//	426  the request does not ask for a WebSocket
//	403  the request comes from a foreign page; see [wsauth.OriginError]
//	400  the handshake is malformed (RFC 6455, section 4.2.1)
//	500  w cannot be hijacked
func (u *Upgrader) Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	if status, err := u.check(w, r); status != 0 {
		return nil, u.refuse(w, r, status, err)
	}
	if len(u.cfg.Subprotocols) > 0 {
		// Not by the library, which ignores the case of letters.
		w.Header().Del("Sec-WebSocket-Protocol")
		if p := u.subprotocol(r); p != "" {
			w.Header().Set("Sec-WebSocket-Protocol", p)
		}
	}
	c := &Conn{cfg: &u.cfg}
	w.Header().Del("Sec-WebSocket-Extensions")
	if u.cfg.Compress != nil && u.cfg.Compress(r) {
		// Not by the library, which answers some offers wrongly, and keeps a
		// decompressor while a client stalls in a message.
		if answer := negotiate(r.Header["Sec-Websocket-Extensions"]); answer != "" {
			w.Header().Set("Sec-WebSocket-Extensions", answer)
			c.deflate = true
		}
	}
	c.limit.Store(u.cfg.ReadLimit)
	lib, err := newLibrary(c, w, r)
	if err != nil {
		return nil, &UpgradeError{http.StatusInternalServerError, err}
	}
	c.lib.Store(lib)
	c.subprotocol = w.Header().Get("Sec-WebSocket-Protocol")
	if c.direct = directTo(c.raw); c.direct == nil {
		if c.keeper = keeperOf(c.raw); c.keeper != nil {
			c.keeper.begin() // the 101 is written
		}
	}
	if socket, ok := baseOf(c.raw).(interface{ SetWriteBuffer(int) error }); ok && u.cfg.SendBuffer > 0 {
		_ = socket.SetWriteBuffer(u.cfg.SendBuffer) // without it, the system's default applies
	}
	c.timeMu.Lock()
	c.pingAt = u.cfg.wheel.spread(c, u.cfg.PingInterval)
	c.timeMu.Unlock()
	return c, nil
}

func (u *Upgrader) refuse(w http.ResponseWriter, r *http.Request, status int, err error) *UpgradeError {
	switch {
	case status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	case status == http.StatusUpgradeRequired && r.ProtoMajor == 1:
		// RFC 9113, section 8.2.2, forbids both headers in HTTP/2.
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
	}
	http.Error(w, http.StatusText(status), status)
	return &UpgradeError{status, err}
}

// screen makes the checks of Screen, the cheapest first.
func (u *Upgrader) screen(r *http.Request) (int, error) {
	h := r.Header
	switch {
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, nil
	case !r.ProtoAtLeast(1, 1), !hasToken(h["Connection"], "upgrade"), !hasToken(h["Upgrade"], "websocket"):
		return http.StatusUpgradeRequired, nil
	}
	if err := u.cfg.Origins.Check(r); err != nil {
		u.cfg.Audit(wsauth.Event{
			Time: time.Now(), Kind: wsauth.EventOriginRefused, Reason: wsauth.ReasonOrigin,
			Peer: wsauth.Peer{Addr: u.cfg.ClientIP(r)}, Detail: strings.TrimPrefix(err.Error(), "wsauth: "),
		})
		return http.StatusForbidden, err
	}
	return 0, nil
}

// check verifies everything that the handshake needs, so that the library never
// fails there: its errors quote the request.
func (u *Upgrader) check(w http.ResponseWriter, r *http.Request) (int, error) {
	if status, err := u.screen(r); status != 0 {
		return status, err
	}
	h := r.Header
	if h.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusBadRequest, nil
	}
	keys := h["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return http.StatusBadRequest, nil
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(key) != 16 {
		return http.StatusBadRequest, nil
	}
	if !hijack.Possible(w) {
		return http.StatusInternalServerError, errors.New("the ResponseWriter cannot be hijacked")
	}
	return 0, nil
}

// tokenLetters are the characters of a token (RFC 9110, section 5.6.2).
const tokenLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"

// subprotocol returns the first of our subprotocols that the client offers.
func (u *Upgrader) subprotocol(r *http.Request) string {
	offers := r.Header["Sec-Websocket-Protocol"]
	for _, ours := range u.cfg.Subprotocols {
		for _, line := range offers {
			for offered := range strings.SplitSeq(line, ",") {
				if strings.Trim(offered, " \t") == ours {
					return ours
				}
			}
		}
	}
	return ""
}

func hasToken(values []string, want string) bool {
	for _, v := range values {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), want) {
				return true
			}
		}
	}
	return false
}
