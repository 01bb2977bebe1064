// Package relay sends the messages of publishers to all viewers. One endpoint
// serves both: every connection is a viewer, and becomes a publisher when it
// shows a token.
//
// A message passes through Session.Next, Session.Authorize, wire.Decode and
// history.Log.Append. Every viewer's cursor then reads it from the log. There
// is no queue for each viewer: a slow viewer only has an older cursor. It gets
// the missed messages in one frame, or a history frame if the log no longer
// keeps them.
//
// # Messages that are sent again
//
// The relay recognizes the newest 1,000 ids of each device. The log keeps each
// id next to its message, and viewers do not get the ids. A restart signal
// carries the newest 256 ids of each device (64 KiB in all) of the messages
// that it clears. So if the log is durable, a restarted server recognizes the
// ids too, as long as the log keeps the messages. After a restart it does not
// recognize the ids of messages that retention has dropped, that were erased,
// or that an import has replaced. If several servers share the log, each
// recognizes the ids of messages that the others have stored.
//
// # Cost of a message
//
// A message with an id takes 34 allocations, and one without an id 16. In a
// profile of BenchmarkPublish, the processor's time from the socket to the log
// and back goes to the read and the frame (21 %), the answer (16 %, nearly all
// of it write(2)), the decoder (10 %), the encoder (8 %), the append (5 %) and
// the look for a token (2 %). The rest is the scheduler and the system.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Close codes of the protocol, RFC 6455 section 7.4.1.
const (
	codeNormal    = 1000
	codeGoingAway = 1001
	codePolicy    = 1008
	codeInternal  = 1011
	codeTryLater  = 1013
)

// viewerOnly is the answer to a message of a peer that has no permission to
// publish, or has it no longer.
var viewerOnly = []byte(`{"status":"viewer"}`)

// Config configures a [Relay]. Log, Gate, Upgrader and ClientIP are required.
type Config struct {
	Log      *history.Log
	Gate     *wsauth.Gate
	Upgrader *wsconn.Upgrader
	ClientIP func(*http.Request) netip.Addr // for logs and the audit

	// Barred, if set, reports whether an address may no longer be connected.
	// The relay calls it when [Relay.Disconnect] can already find the
	// connection, so that no connection slips through between its admission and
	// a block.
	Barred func(netip.Addr) bool
	// OnEnd, if set, is called for every connection that has ended, in the
	// goroutine of the connection. lasted is how long the connection was open.
	OnEnd func(addr netip.Addr, lasted time.Duration)
	// OnFlood, if set, is called before OnEnd with every client that was
	// disconnected for frames that deliver nothing.
	OnFlood func(addr netip.Addr)

	// Room, if set, is the name of this relay's conversation among several. A
	// device may publish in the room that has its name, and in those that its
	// token names with "publish:ROOM". The audit gets the name as that of the
	// peer.
	Room string

	// PublishRate and PublishBurst limit the messages of one publisher: how
	// many a second, and how many at once. Above the limit the relay reads more
	// slowly, so no message is lost. Defaults: 200 and 400.
	PublishRate  rate.Limit
	PublishBurst int
	// Patience is how long the relay tries again to store a message if the log
	// fails, such as one whose engine is away, and how long it waits before
	// that if the gate cannot decide whether the publisher may publish. It
	// reads nothing more from the publisher meanwhile. After that, it closes
	// the connection with 1013. 0 means that it tries once, and closes with
	// 1011.
	Patience time.Duration

	// ReturnRate is how many clients are asked to come back in each second
	// after [Relay.Shutdown]. The reason of each close frame, "retry=SECONDS",
	// names the time of its client, 5 minutes at most. The first may come back
	// after 2 seconds, and publishers with "watch=0" after 1. Default 500:
	// accepting so many takes less than half a processor.
	ReturnRate rate.Limit
	// Requesting, if set, counts the clients that publish with requests, and is
	// shared by relays that together admit no more of them than one would.
	Requesting *atomic.Int64
	// Leaving, if set, returns how many viewers leave together with those of this
	// relay, which are included. ReturnRate is for all of them.
	Leaving func() int

	// Delay is how long after its publication viewers see a message. What is
	// erased or held before then is never shown. It goes by the clock of Log. A
	// restart signal is shown as late, but its conversation is cleared at once,
	// so the end of that is not shown. 0 means at once.
	Delay time.Duration
	// Held, if set, returns since when viewers are held, by the clock of Log, or
	// the zero time if they are not, and as of when that is known. Viewers who
	// are held see what they would have seen then, until they are not. It must
	// not block.
	Held func() (since, known time.Time)

	// Watching, if set, returns how many watch, here and elsewhere. Viewers get it
	// with each frame. It must not block.
	Watching func() int

	// Lives is what to do with the lives that end.
	Lives Lives

	// Logger gets the lines of connections and of publishers. Their number is
	// bounded by the limiter that admits the connections, and by PublishRate.
	// If nil, nothing is logged.
	Logger *slog.Logger
	// Thinned gets the lines that a stranger can cause as often as it likes:
	// requests that are refused before they are limited, and panics. It should
	// thin them by their message. Default Logger.
	Thinned *slog.Logger
}

// Relay is an http.Handler for the WebSocket endpoint. It is safe for
// concurrent use.
type Relay struct {
	cfg      Config
	log      *slog.Logger
	frames   frameCache
	fanout   *fanout
	seen     *seen
	counts   *counts
	recorder recorder
	// posters publish without a connection.
	posters posters
	ctx     context.Context // ends with Shutdown
	stop    context.CancelFunc

	mu       sync.Mutex
	stopping bool
	viewers  map[*viewer]struct{}
	done     sync.WaitGroup
}

// New returns a relay that knows the ids in the log. If cfg is not valid, the
// error names every missing or negative field.
func New(cfg Config) (*Relay, error) {
	var errs []error
	need := func(missing bool, name string) {
		if missing {
			errs = append(errs, errors.New("relay: Config."+name+" is required"))
		}
	}
	need(cfg.Log == nil, "Log")
	need(cfg.Gate == nil, "Gate")
	need(cfg.Upgrader == nil, "Upgrader")
	need(cfg.ClientIP == nil, "ClientIP")
	if cfg.PublishRate < 0 || cfg.PublishBurst < 0 || cfg.Patience < 0 || cfg.ReturnRate < 0 || cfg.Delay < 0 || cfg.Lives.MaxBytes < 0 {
		errs = append(errs, errors.New("relay: Config.PublishRate, PublishBurst, Patience, ReturnRate, Delay and Lives.MaxBytes must not be negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.PublishRate == 0 {
		cfg.PublishRate = 200
	}
	if cfg.PublishBurst == 0 {
		cfg.PublishBurst = 400
	}
	if cfg.ReturnRate == 0 {
		cfg.ReturnRate = 500
	}
	if cfg.Lives.MaxBytes == 0 {
		cfg.Lives.MaxBytes = DefaultLifeBytes
	}
	if cfg.Requesting == nil {
		cfg.Requesting = new(atomic.Int64)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Thinned == nil {
		cfg.Thinned = cfg.Logger
	}
	r := &Relay{cfg: cfg, log: cfg.Logger, viewers: make(map[*viewer]struct{}), counts: newCounts()}
	r.posters.entries, r.posters.count = make(map[posterKey]*poster), cfg.Requesting
	r.counts.delay = cfg.Delay
	r.frames.watching = cfg.Watching
	r.fanout = newFanout(&r.cfg, &r.frames, r.counts)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	if r.seen, err = newSeen(ctx, cfg.Log); err != nil {
		return nil, fmt.Errorf("relay: the history cannot be read: %w", err)
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Screen is around a limiter around the relay. It refuses requests that a
// foreign page can make a browser send, so that they cost its address nothing.
func (r *Relay) Screen(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.cfg.Upgrader.Screen(w, req); err != nil {
			r.logRefusal(req, r.cfg.ClientIP(req), err)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// ServeHTTP upgrades the request and serves the connection until it ends.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.refused(w) {
		return
	}
	addr := r.cfg.ClientIP(req)
	// The viewer is made before the client knows that it is connected: a
	// message that is published after that is live for the client, and an
	// earlier one is history.
	v := r.newViewer(req, addr)
	conn, err := r.cfg.Upgrader.Accept(w, req) // if it fails, it has answered the request
	if err != nil {
		r.logRefusal(req, addr, err)
		return
	}
	v.conn = conn
	if !r.add(v) {
		_ = conn.Close(codeGoingAway, reason(viewersAway.Seconds()))
		return
	}
	if r.cfg.Barred != nil && r.cfg.Barred(addr) {
		_ = conn.Close(codePolicy, "blocked")
		r.remove(v)
		return
	}
	r.counts.connected.Add(1)
	r.log.Info("connected", "addr", addr)
	// The connection gets a goroutine of its own, so that net/http releases the
	// request and its buffers. For a viewer that only watches, they would be
	// most of its memory.
	go r.attend(v)
}

// attend serves a connection until it ends or is parked. While a viewer
// watches, its connection is parked, and there is no goroutine. If the
// connection cannot be parked, as over TLS, this goroutine sleeps in a read.
// The functions between here and that read keep their stack frames small:
// together the frames fit into a stack of 4 KiB.
func (r *Relay) attend(v *viewer) {
	ended := causePanic
	defer r.end(v, &ended)
	if parked, err := r.serve(v); parked {
		ended = "" // v may already be in use by the next attend
	} else {
		ended = cause(err)
	}
}

// end does nothing if the cause is empty. Else it closes the socket, logs the
// end of the connection and removes it. It is deferred, so that a panic does
// not leave the socket open.
func (r *Relay) end(v *viewer, cause *string) {
	if *cause == "" {
		return
	}
	if p := recover(); p != nil {
		// The value may quote data that a stranger sent.
		r.cfg.Thinned.Error("panic", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	}
	if v.conn != nil {
		_ = v.conn.Abort()
	}
	r.counts.ended[*cause].Add(1)
	lasted := time.Since(v.since)
	r.log.Info("disconnected", "addr", v.addr, "after", lasted.Round(time.Millisecond), "cause", *cause)
	if *cause == causeFlood && r.cfg.OnFlood != nil {
		r.cfg.OnFlood(v.addr)
	}
	if r.cfg.OnEnd != nil {
		r.cfg.OnEnd(v.addr, lasted)
	}
	r.remove(v)
}

func (r *Relay) logRefusal(req *http.Request, addr netip.Addr, err error) {
	if _, foreign := errors.AsType[*wsauth.OriginError](err); foreign {
		return // the audit logs it
	}
	r.counts.failed.Add(1)
	r.cfg.Thinned.Info("upgrade failed", "addr", addr, "method", req.Method, "error", err)
}

// serve reads from a connection while the couriers write to it, until the
// connection is parked or has ended. In the latter case it returns the error
// that ended the connection.
func (r *Relay) serve(v *viewer) (parked bool, err error) {
	defer func() {
		if parked {
			return
		}
		if !v.blind {
			r.fanout.leave(v)
		}
		_ = v.session.Close(codeGoingAway, "")
	}()
	if v.session != nil { // it was parked
		return r.read(v, false)
	}
	v.session = r.cfg.Gate.Attach(v.conn, wsauth.Peer{Addr: v.addr, ID: r.cfg.Room})
	if !v.blind {
		r.fanout.join(v)
	}
	return r.read(v, true)
}

// cause names the cause of a connection's end in fixed words, because the text
// of err may quote the close reason that the peer chose.
func cause(err error) string {
	switch {
	case errors.Is(err, wsauth.ErrAuthenticationFailed):
		return "authentication failed"
	case errors.Is(err, wsauth.ErrInvalidJSON):
		return "invalid JSON"
	case errors.Is(err, wsauth.ErrTooBig):
		return "message too big"
	case errors.Is(err, wsconn.ErrStalled):
		return causeSlow
	case errors.Is(err, wsconn.ErrUnresponsive):
		return "no answer"
	case errors.Is(err, wsconn.ErrProtocol):
		return "protocol violated"
	case errors.Is(err, wsconn.ErrFlooded):
		return causeFlood
	}
	return causeOther
}

// read handles the messages of the peer until the connection is parked or has
// ended. It parks the connection of a peer that only watches, and not that of a
// blind one, which will publish.
func (r *Relay) read(v *viewer, watches bool) (parked bool, err error) {
	for {
		if watches && !v.blind && v.conn.Park(v.wake) {
			return true, nil
		}
		// The read ends with the connection. If a context ended it, the
		// connection would stay open.
		data, err := v.session.Next(context.Background())
		if err != nil {
			return false, err
		}
		if v.limit == nil {
			v.limit = rate.NewLimiter(r.cfg.PublishRate, r.cfg.PublishBurst)
		}
		if watches, err = r.take(v.session, v.limit, data); err != nil {
			return false, err
		}
	}
}

// take handles one message of a publisher, and reports whether the peer can
// only watch. If it returns an error, the connection ends.
func (r *Relay) take(session *wsauth.Session, limit *rate.Limiter, data []byte) (watches bool, err error) {
	ctx := context.Background()
	// This wait before the next read slows down a fast publisher: its messages
	// queue up in its own socket.
	if err := limit.Wait(ctx); err != nil {
		return false, err
	}
	if err := r.authorize(session); err != nil {
		if _, undecided := errors.AsType[*wsauth.UnavailableError](err); undecided {
			return false, r.unpublished(session, err)
		}
		// The permission has expired, or the token never gave it. Watching
		// needs no permission.
		return true, session.Reply(ctx, viewerOnly)
	}
	return false, r.publishOne(session, data)
}

// publishOne stores a message of a publisher that may publish, and answers it.
func (r *Relay) publishOne(session *wsauth.Session, data []byte) error {
	ctx := context.Background()
	m, err := wire.Decode(data)
	if schema, ok := errors.AsType[*wire.SchemaError](err); ok {
		r.counts.invalid.Add(1)
		return session.Reply(ctx, schema.Answer())
	}
	duplicate := false
	if err == nil {
		_, duplicate, err = r.store(session, &m)
	}
	if err != nil {
		return r.unpublished(session, err)
	}
	if m.ID == "" {
		return nil
	}
	// The message is stored. If the publisher is gone, that is no failure of
	// the relay: the publisher sends the message again and gets its answer
	// then.
	return session.Reply(ctx, wire.Ack(m.ID, duplicate))
}

// unpublished ends the connection of a publisher whose message cannot be
// stored because of err, and returns err.
func (r *Relay) unpublished(session *wsauth.Session, err error) error {
	r.counts.unpublished.Add(1)
	r.log.Error("publishing failed", "error", err)
	if r.cfg.Patience > 0 {
		_ = session.Close(codeTryLater, "messages cannot be stored now")
	} else {
		_ = session.Close(codeInternal, "internal error")
	}
	return err
}

func (r *Relay) add(v *viewer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return false
	}
	r.viewers[v] = struct{}{}
	r.done.Add(1)
	return true
}

func (r *Relay) remove(v *viewer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.viewers, v)
	r.done.Done()
}

// Disconnect closes the connections of all publishers and viewers whose
// addresses match, with 1008, and returns how many there were. It does not wait
// until they have ended, and does not prevent new ones.
func (r *Relay) Disconnect(match func(netip.Addr) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for v := range r.viewers {
		if match(v.addr) {
			n++
			go v.close(codePolicy, "blocked")
		}
	}
	return n
}

// Len returns how many connections are open.
func (r *Relay) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.viewers)
}

// Watching returns how many of the connections watch. The others only publish.
func (r *Relay) Watching() int { return int(r.fanout.watching.Load()) }

// refused answers a client that comes after Shutdown, and reports whether it did.
func (r *Relay) refused(w http.ResponseWriter) bool {
	if !r.Stopping() {
		return false
	}
	w.Header().Set("Retry-After", "5")
	http.Error(w, "Service unavailable", http.StatusServiceUnavailable)
	return true
}

// Stopping reports whether Shutdown was called.
func (r *Relay) Stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}
