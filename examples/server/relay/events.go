package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// EventsPath is the path at which clients watch without a WebSocket.
const EventsPath = "/events"

// EventsConfig configures [Relay.EventsHandler]. Limit is required.
type EventsConfig struct {
	// Origins decides which pages may watch. A page of another origin cannot,
	// and costs its visitor nothing.
	Origins wsauth.Origins
	// Limit admits a request, as that of a socket, and holds its slot until the
	// handler returns.
	Limit func(http.Handler) http.Handler
	// Audit, if set, gets a [wsauth.EventOriginRefused] for each request of a
	// foreign page.
	Audit func(wsauth.Event)
	// Ping is how long a stream is quiet before a comment is sent. 0 means 15
	// seconds.
	Ping time.Duration
	// WriteTimeout is how long one write may take: a frame of at most 64 KiB,
	// or one message that is longer. 0 means 30 seconds. On Linux, a
	// client may leave what was sent unacknowledged for twice as long.
	WriteTimeout time.Duration
	// SendBuffer is the size of the socket's send buffer in bytes. 0 is the
	// system's default. It and the bounds above need [ConnContext].
	SendBuffer int
}

type connKey struct{}

// ConnContext is for [http.Server.ConnContext]. With it, the relay can close the
// connection of a stream. Over HTTP/2, nothing less ends a write to a client
// that reads nothing more.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// socketOf returns the socket of a request, below TLS, or nil.
func socketOf(req *http.Request) net.Conn {
	conn, _ := req.Context().Value(connKey{}).(net.Conn)
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.NetConn()
	}
}

// EventsHandler returns the handler of [EventsPath], for networks that let no
// WebSocket pass. It sends the frames of the socket as server-sent events (HTML
// standard, section 9.2). The id of an event is the position after its frame. A
// client that comes back sends it in Last-Event-ID, which takes the place of
// the parameter since, and gets what it has missed. A comment goes out while
// there is nothing to say.
//
// If the relay ends a stream, its last event is named "close", with the code
// and the reason that a socket would get: {"code":1001,"reason":"retry=17"}. A
// client that knows nothing of it connects again after the time in "retry:".
//
// The fan-out is the same: the stream has a cursor and no queue, shares its
// frames with all other clients, and waits for none of them. It takes a
// goroutine and the buffers of net/http.
func (r *Relay) EventsHandler(cfg EventsConfig) http.Handler {
	if cfg.Audit == nil {
		cfg.Audit = func(wsauth.Event) {}
	}
	if cfg.Ping == 0 {
		cfg.Ping = 15 * time.Second
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 30 * time.Second
	}
	admitted := cfg.Limit(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.events(&cfg, w, req) }))
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if req.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "use GET", http.StatusMethodNotAllowed)
			return
		}
		if err := cfg.Origins.Check(req); err != nil {
			cfg.Audit(refusedOrigin(r.cfg.ClientIP(req), err))
			http.Error(w, "Forbidden", http.StatusForbidden)
			return
		}
		if fromElement(req) {
			http.Error(w, "Not acceptable: ask for text/event-stream", http.StatusNotAcceptable)
			return
		}
		if origin := req.Header.Get("Origin"); origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin) // ALLOWED_ORIGINS has it
			w.Header().Add("Vary", "Origin")
		}
		admitted.ServeHTTP(w, req)
	})
}

// fromElement reports whether a browser asks for something else than events, and
// does not say for which page: an image or a script of any page can make such a
// request, over plain HTTP or in an old browser.
func fromElement(req *http.Request) bool {
	h := req.Header
	return h.Get("Origin") == "" && h.Get("Sec-Fetch-Site") == "" &&
		strings.HasPrefix(h.Get("User-Agent"), "Mozilla/") && !strings.Contains(h.Get("Accept"), "text/event-stream")
}

// events sends frames to an admitted client until the stream ends.
func (r *Relay) events(cfg *EventsConfig, w http.ResponseWriter, req *http.Request) {
	if r.refused(w) {
		return
	}
	addr := r.cfg.ClientIP(req)
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	v := r.newViewer(req, addr)
	v.blind = false
	v.stream = &stream{
		w: w, control: http.NewResponseController(w), timeout: cfg.WriteTimeout,
		cancel: cancel, conn: socketOf(req), frames: make(chan shared, 1), over: make(chan goodbye, 1),
	}
	defer v.stream.deadline(cfg.WriteTimeout) // for what net/http still writes
	v.stream.bound(cfg, req.ProtoMajor)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for nginx
	if req.ProtoMajor == 1 {
		h.Set("Connection", "close") // the last deadline would hold for the next request too
	}
	if !r.add(v) {
		_ = v.stream.end(goodbye{codeGoingAway, reason(viewersAway.Seconds())})
		return
	}
	if r.cfg.Barred != nil && r.cfg.Barred(addr) {
		_ = v.stream.end(goodbye{codePolicy, "blocked"})
		r.remove(v)
		return
	}
	ended := causePanic
	defer r.end(v, &ended)
	r.counts.connected.Add(1)
	r.log.Info("connected", "addr", addr, "by", "events")
	r.fanout.join(v)
	defer r.fanout.leave(v)
	err := v.stream.follow(ctx, cfg.Ping, v.taken)
	if ended = causeOther; errors.Is(err, errSlow) {
		ended = causeSlow
	}
}

// stream is the connection of a viewer that gets events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	cancel  context.CancelFunc
	conn    net.Conn     // its socket, or nil
	guard   *time.Timer  // over HTTP/2: aborts a write that takes too long
	frames  chan shared  // of size 1: the courier gives a frame after the last one was taken
	over    chan goodbye // of size 1

	mu      sync.Mutex
	aborted bool
}

// goodbye is why a stream ends, in the terms of a close frame.
type goodbye struct {
	code   int
	reason string
}

// bound limits what the system holds for a client that takes nothing.
func (s *stream) bound(cfg *EventsConfig, major int) {
	if socket, ok := s.conn.(interface{ SetWriteBuffer(int) error }); ok && cfg.SendBuffer > 0 {
		_ = socket.SetWriteBuffer(cfg.SendBuffer) // without it, the system's default applies
	}
	if socket, ok := s.conn.(syscall.Conn); ok {
		giveUpAfter(socket, 2*cfg.WriteTimeout) // a write ends sooner, and says why
	}
	if major >= 2 {
		s.guard = time.AfterFunc(time.Hour, s.abort)
		s.guard.Stop()
	}
}

// follow writes the frames of the courier until ctx or the stream ends.
func (s *stream) follow(ctx context.Context, every time.Duration, taken func(error)) error {
	ping := time.NewTimer(every)
	defer ping.Stop()
	// At once, so that the client knows that it is connected. Clients that lose
	// it together come back at different times.
	if err := s.write(fmt.Appendf(nil, "retry: %d\n\n", 2000+rand.IntN(2000))); err != nil {
		return err
	}
	for {
		select {
		case bye := <-s.over: // before a frame that waits
			return s.end(bye)
		default:
		}
		select {
		case f := <-s.frames:
			if err := s.write(f.event()); err != nil {
				return err
			}
			taken(nil)
			ping.Reset(every)
		case <-ping.C:
			if err := s.write([]byte(":\n\n")); err != nil {
				return err
			}
			ping.Reset(every)
		case bye := <-s.over:
			return s.end(bye)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// eventOf returns the event of a frame. JSON has line ends between its tokens
// only, and an event would take them for the end of its data.
func eventOf(pos string, text []byte) []byte {
	const id, data, end = "id: ", "\ndata: ", "\n\n"
	event := make([]byte, 0, len(id)+len(pos)+len(data)+len(text)+len(end))
	event = append(event, id+pos+data...)
	for _, c := range text {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		event = append(event, c)
	}
	return append(event, end...)
}

// end writes the last event of a stream.
func (s *stream) end(bye goodbye) error {
	text := ""
	var seconds int
	if _, err := fmt.Sscanf(bye.reason, "retry=%d", &seconds); err == nil {
		text = fmt.Sprintf("retry: %d\n", 1000*seconds)
	}
	err := s.write(fmt.Appendf(nil, "%sevent: close\ndata: {\"code\":%d,\"reason\":%q}\n\n", text, bye.code, bye.reason))
	return err
}

// errSlow is the error of a write that took longer than it may.
var errSlow = errors.New("the client takes nothing")

// write writes b and sends it, before the deadline.
func (s *stream) write(b []byte) error {
	began := time.Now()
	s.deadline(s.timeout)
	if s.guard != nil {
		s.guard.Reset(s.timeout + s.timeout/10) // the deadline ends it sooner, if the client reads other streams
		defer s.guard.Stop()
	}
	_, err := s.w.Write(b)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		if time.Since(began) >= s.timeout {
			return errSlow // HTTP/2 says only that the stream is closed
		}
		return err
	}
	// HTTP/2 resets the stream at the deadline even if nothing is written.
	s.deadline(0)
	return nil
}

// deadline bounds the writes from now on; 0 is no bound.
func (s *stream) deadline(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Time{}
	if wait > 0 {
		at = time.Now().Add(wait)
	}
	if !s.aborted {
		_ = s.control.SetWriteDeadline(at)
	}
}

// close ends the stream with a last event, unless it is ending.
func (s *stream) close(code int, reason string) {
	select {
	case s.over <- goodbye{code, reason}:
	default:
	}
}

// abort ends the stream at once, also if the client takes nothing.
func (s *stream) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	if s.guard != nil && s.conn != nil {
		_ = s.conn.Close()
	}
	s.cancel()
}

// refusedOrigin is the event of a request from a foreign page.
func refusedOrigin(addr netip.Addr, err error) wsauth.Event {
	return wsauth.Event{
		Time: time.Now(), Kind: wsauth.EventOriginRefused, Reason: wsauth.ReasonOrigin,
		Peer: wsauth.Peer{Addr: addr}, Detail: strings.TrimPrefix(err.Error(), "wsauth: "),
	}
}
