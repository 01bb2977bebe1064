// Package relay carries what publishers say to everybody who watches. One
// endpoint serves both: every connection is a viewer, and becomes a publisher
// by showing a token.
//
// A message goes Session.Next, Session.Authorize, wire.Decode,
// history.Log.Append; every viewer's cursor then reads it from the log. There
// is no queue per viewer: one that is slow only has an older cursor, and finds
// what it missed merged into one frame, or a history frame where that is no
// longer kept.
//
// # Messages that are sent again
//
// The newest 1,000 ids of each device are known again. They stand beside the
// messages in the log, unseen by viewers, and a restart signal carries the
// newest 256 of each device (64 KiB in all) of what it clears. So where the log
// is durable they are known after a restart of the server too, as long as the
// log keeps those messages. Not known then are ids of messages that retention
// has dropped, that were erased, or that an import has replaced.
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
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
	"golang.org/x/time/rate"
)

// Close codes of the protocol, RFC 6455 section 7.4.1.
const (
	codeGoingAway = 1001
	codePolicy    = 1008
	codeInternal  = 1011
)

// viewerOnly tells a publisher that it is one no longer.
var viewerOnly = []byte(`{"status":"viewer"}`)

// Config says what a relay stands on. Log, Gate and Upgrader are required.
type Config struct {
	Log      *history.Log
	Gate     *wsauth.Gate
	Upgrader *wsconn.Upgrader
	ClientIP func(*http.Request) netip.Addr // for logs and the audit; required

	// Barred, if set, says that an address may not be connected any more. It is
	// asked once the connection is in reach of [Relay.Disconnect], so that none
	// slips through between an admission and a block.
	Barred func(netip.Addr) bool
	// OnEnd, if set, is called with every connection that has ended, and how
	// long it lasted, in the connection's goroutine.
	OnEnd func(addr netip.Addr, lasted time.Duration)

	// PublishRate and PublishBurst bound one publisher's messages a second.
	// Over them the relay reads slower, so nothing is lost. Defaults: 200 and
	// 400.
	PublishRate  rate.Limit
	PublishBurst int

	Logger *slog.Logger // nil: silence
}

// Relay is an http.Handler for the WebSocket endpoint. It is safe for
// concurrent use.
type Relay struct {
	cfg    Config
	log    *slog.Logger
	frames frameCache
	fanout *fanout
	seen   seen
	counts *counts

	mu       sync.Mutex
	stopping bool
	conns    map[*wsconn.Conn]netip.Addr
	done     sync.WaitGroup
}

// New returns a relay, or an error that names what is missing.
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
	if cfg.PublishRate < 0 || cfg.PublishBurst < 0 {
		errs = append(errs, errors.New("relay: Config.PublishRate and PublishBurst must not be negative"))
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
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Relay{cfg: cfg, log: cfg.Logger, conns: make(map[*wsconn.Conn]netip.Addr), counts: newCounts()}
	r.fanout = newFanout(cfg.Log, &r.frames, r.counts)
	if err := r.seen.recall(context.Background(), cfg.Log); err != nil {
		return nil, err
	}
	return r, nil
}

// ServeHTTP upgrades the request and serves the connection until it ends.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.Stopping() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Service unavailable", http.StatusServiceUnavailable)
		return
	}
	addr := r.cfg.ClientIP(req)
	// Before the client knows that it is connected: what is published once it
	// does is live to it, and what was there before is history.
	v := r.newViewer(req)
	conn, err := r.cfg.Upgrader.Accept(w, req) // answers the request itself where it fails
	if err != nil {
		r.logRefusal(req, addr, err)
		return
	}
	v.conn = conn
	if !r.add(conn, addr) {
		_ = conn.Close(codeGoingAway, "server stopping")
		return
	}
	if r.cfg.Barred != nil && r.cfg.Barred(addr) {
		_ = conn.Close(codePolicy, "blocked")
		r.remove(conn)
		return
	}
	r.counts.connected.Add(1)
	r.log.Info("connected", "addr", addr)
	// In a goroutine of its own, so that net/http lets go of the request and
	// its buffers: for a viewer who only watches they would be most of what it
	// costs.
	go r.attend(v, addr)
}

// attend serves a connection until it ends. For as long as a viewer watches,
// this goroutine sleeps in a read, so what is called from here to there keeps
// its frames small: together they fit into a stack of 4 KiB.
func (r *Relay) attend(v *viewer, addr netip.Addr) {
	ended := causePanic
	defer r.end(v, addr, time.Now(), &ended)
	ended = cause(r.serve(v, addr))
}

// end is deferred: whatever ended the connection, a panic included, the socket
// is gone after it.
func (r *Relay) end(v *viewer, addr netip.Addr, since time.Time, cause *string) {
	if p := recover(); p != nil {
		// The value may quote what a stranger sent.
		r.log.Error("panic", "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	}
	_ = v.conn.Abort()
	r.counts.ended[*cause].Add(1)
	lasted := time.Since(since)
	r.log.Info("disconnected", "addr", addr, "after", lasted.Round(time.Millisecond), "cause", *cause)
	if r.cfg.OnEnd != nil {
		r.cfg.OnEnd(addr, lasted)
	}
	r.remove(v.conn)
}

func (r *Relay) logRefusal(req *http.Request, addr netip.Addr, err error) {
	if _, foreign := errors.AsType[*wsconn.OriginError](err); foreign {
		return // the audit has it
	}
	r.counts.failed.Add(1)
	r.log.Info("upgrade failed", "addr", addr, "method", req.Method, "error", err)
}

// serve reads from a connection while the couriers write to it, and returns
// what ended it.
func (r *Relay) serve(v *viewer, addr netip.Addr) error {
	session := r.cfg.Gate.Attach(v.conn, wsauth.Peer{Addr: addr})
	r.fanout.join(v)
	defer session.Close(codeGoingAway, "")
	defer r.fanout.leave(v)
	return r.read(session)
}

// cause is what ended a connection, in words of our own: an error's text may
// hold the reason that the peer gave, which is a stranger's.
func cause(err error) string {
	switch {
	case errors.Is(err, wsauth.ErrAuthenticationFailed):
		return "authentication failed"
	case errors.Is(err, wsauth.ErrInvalidJSON):
		return "invalid JSON"
	case errors.Is(err, wsauth.ErrTooBig):
		return "message too big"
	case errors.Is(err, wsconn.ErrStalled):
		return "too slow"
	case errors.Is(err, wsconn.ErrUnresponsive):
		return "no answer"
	case errors.Is(err, wsconn.ErrProtocol):
		return "protocol violated"
	}
	return causeOther
}

// read takes what the peer sends until the connection ends.
func (r *Relay) read(session *wsauth.Session) error {
	var limit *rate.Limiter // most never publish
	for {
		// Reading is given up with the connection: a context that ends would
		// leave it open.
		data, err := session.Next(context.Background())
		if err != nil {
			return err
		}
		if limit == nil {
			limit = rate.NewLimiter(r.cfg.PublishRate, r.cfg.PublishBurst)
		}
		if err := r.take(session, limit, data); err != nil {
			return err
		}
	}
}

// take deals with one message of a publisher. Its error ends the connection.
func (r *Relay) take(session *wsauth.Session, limit *rate.Limiter, data []byte) error {
	ctx := context.Background()
	// Waiting here, before the next read, is what slows a fast publisher: its
	// messages queue up in its own socket.
	if err := limit.Wait(ctx); err != nil {
		return err
	}
	if err := session.Authorize(wsauth.Publish); err != nil {
		// The right has ended, or never held this permission; watching needs
		// none.
		return session.Reply(ctx, viewerOnly)
	}
	m, err := wire.Decode(data)
	if err == nil {
		err = r.accept(ctx, session, &m)
	}
	if schema, ok := errors.AsType[*wire.SchemaError](err); ok {
		r.counts.invalid.Add(1)
		return session.Reply(ctx, schema.Answer())
	}
	if err != nil {
		r.counts.unpublished.Add(1)
		r.log.Error("publishing failed", "error", err)
		_ = session.Close(codeInternal, "internal error")
	}
	return err
}

// accept publishes m, unless the device did so before, and tells it.
func (r *Relay) accept(ctx context.Context, session *wsauth.Session, m *wire.Message) error {
	if m.ID == "" && !m.Restarting() {
		return r.publish(ctx, m, nil)
	}
	identity, _ := session.Identity()
	err := r.seen.once(identity.Device, m.ID, m.Restarting(), func(known marks) error { return r.publish(ctx, m, known) })
	if err != nil || m.ID == "" {
		return err
	}
	return session.Reply(ctx, wire.Ack(m.ID))
}

func (r *Relay) publish(ctx context.Context, m *wire.Message, known marks) error {
	data := stored(m.Encode(time.Now()), known)
	var err error
	switch {
	case !m.Restarting():
		_, err = r.cfg.Log.Append(ctx, data)
	case m.Bare(): // broadcast, but not kept
		_, err = r.cfg.Log.Replace(ctx, data)
	default:
		_, err = r.cfg.Log.Replace(ctx, data, data)
	}
	if errors.Is(err, history.ErrUnfinished) {
		// It is published. The log's Store tries again to erase the rest.
		r.log.Error("what a restart signal cleared may still be on disk", "error", err)
		err = nil
	}
	if m.Restarting() {
		r.frames.forget() // what was cleared is not to be found in memory either
	}
	return err
}

// Trimmed is to be called when the log has dropped entries, so that those which
// were too old are not to be had from memory either.
func (r *Relay) Trimmed(t history.Trim) {
	if t.Reason == history.TrimByAge {
		r.frames.forget()
	}
}

func (r *Relay) add(conn *wsconn.Conn, addr netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return false
	}
	r.conns[conn] = addr
	r.done.Add(1)
	return true
}

func (r *Relay) remove(conn *wsconn.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	r.done.Done()
}

// Disconnect ends the connections of the addresses that match, publishers and
// viewers alike, with 1008, and returns how many there were. It does not wait
// for them, nor keep them from coming back.
func (r *Relay) Disconnect(match func(netip.Addr) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for conn, addr := range r.conns {
		if match(addr) {
			n++
			go conn.Close(codePolicy, "blocked")
		}
	}
	return n
}

// Len returns how many connections are open.
func (r *Relay) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// Stopping reports whether Shutdown was called.
func (r *Relay) Stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

// Shutdown refuses new connections, sends 1001 to the open ones and waits until
// all are gone or ctx ends; then it cuts what is left. http.Server.Shutdown
// does not do this, because it forgets hijacked connections.
func (r *Relay) Shutdown(ctx context.Context) error {
	defer r.fanout.close()
	r.mu.Lock()
	r.stopping = true
	for conn := range r.conns {
		// Each is bounded by the connection's own grace, and side by side they
		// take no longer than one.
		go conn.Close(codeGoingAway, "server stopping")
	}
	r.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		r.done.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	for conn := range r.conns {
		conn.Abort()
	}
	r.mu.Unlock()
	<-gone
	return ctx.Err()
}
