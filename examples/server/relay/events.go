package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"sync"
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
	// or one message that is longer. 0 means 30 seconds.
	WriteTimeout time.Duration
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
		if origin := req.Header.Get("Origin"); origin != "" {
			w.Header().Set("Access-Control-Allow-Origin", origin) // ALLOWED_ORIGINS has it
			w.Header().Add("Vary", "Origin")
		}
		admitted.ServeHTTP(w, req)
	})
}

// events sends frames to an admitted client until the stream ends.
func (r *Relay) events(cfg *EventsConfig, w http.ResponseWriter, req *http.Request) {
	if r.Stopping() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Service unavailable", http.StatusServiceUnavailable)
		return
	}
	addr := r.cfg.ClientIP(req)
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	v := r.newViewer(req, addr)
	v.blind = false
	v.stream = &stream{
		w: w, control: http.NewResponseController(w), timeout: cfg.WriteTimeout,
		cancel: cancel, frames: make(chan shared, 1), over: make(chan goodbye, 1),
	}
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
	ended = causeOther
	if err := v.stream.follow(ctx, cfg.Ping, v.taken); errors.Is(err, errSlow) {
		ended = causeSlow
	}
}

// stream is the connection of a viewer that gets events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	cancel  context.CancelFunc
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
	s.deadline(s.timeout) // for what net/http still writes
	return err
}

// errSlow is the error of a write that took longer than it may.
var errSlow = errors.New("the client takes nothing")

// write writes b and sends it, before the deadline.
func (s *stream) write(b []byte) error {
	began := time.Now()
	s.deadline(s.timeout)
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
	s.cancel()
}

// refusedOrigin is the event of a request from a foreign page.
func refusedOrigin(addr netip.Addr, err error) wsauth.Event {
	return wsauth.Event{
		Time: time.Now(), Kind: wsauth.EventOriginRefused, Reason: wsauth.ReasonOrigin,
		Peer: wsauth.Peer{Addr: addr}, Detail: strings.TrimPrefix(err.Error(), "wsauth: "),
	}
}
