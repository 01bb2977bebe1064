package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// house is the real relay with the real issuer, on a listener of the test.
type house struct {
	t      *testing.T
	keys   *jwtauth.Verifier
	gate   *wsauth.Gate
	issuer *refresh.Issuer
	log    *history.Log
	logs   *testkit.Log
	client *http.Client
	file   string // the device's

	connections, refreshes atomic.Int64
	audit                  sync.Map // wsauth.EventKind to *atomic.Int64

	// onRefresh, if not nil, handles the requests to the issuer.
	onRefresh func(w http.ResponseWriter, r *http.Request, issuer http.Handler)
}

const origin = "127.0.0.1:7777" // the address of the pipes

type houseConfig struct {
	lifetime time.Duration
	gate     func(*wsauth.Config)
	refresh  func(*refresh.Config)
}

// newHouse serves on ln until the test ends.
func newHouse(t *testing.T, ln net.Listener, cfg houseConfig) *house {
	t.Helper()
	h := &house{t: t, logs: new(testkit.Log), file: filepath.Join(t.TempDir(), "token.json")}
	var err error
	must := func() {
		if t.Helper(); err != nil {
			t.Fatal(err)
		}
	}
	h.keys, err = jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{Secret: []byte("a secret of the tests, long enough to be one")}}, Subjects: []string{"pi-1"}, SubjectClaim: "device", Roles: map[string][]string{"publisher": {wsauth.Publish}}, DefaultRole: "publisher"})
	must()
	gate := wsauth.Config{Verifier: h.keys, Audit: h.count}
	if cfg.gate != nil {
		cfg.gate(&gate)
	}
	h.gate, err = wsauth.New(gate)
	must()
	issuer := refresh.Config{
		Signer: h.keys, AccessLifetime: cfg.lifetime, Audit: h.count,
		OnRevoked: func(r refresh.Revocation) { h.gate.Revoke(r.Family.Subject, r.IssuedBefore) },
	}
	if cfg.refresh != nil {
		cfg.refresh(&issuer)
	}
	h.issuer, err = refresh.New(issuer)
	must()
	h.log, err = history.Open(t.Context(), history.Config{})
	must()
	up, err := wsconn.New(wsconn.Config{})
	must()
	r, err := relay.New(relay.Config{Log: h.log, Gate: h.gate, Upgrader: up, ClientIP: func(*http.Request) netip.Addr { return netip.Addr{} }})
	must()
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, req *http.Request) {
		h.connections.Add(1)
		r.ServeHTTP(w, req)
	})
	mux.HandleFunc("/auth/refresh", func(w http.ResponseWriter, req *http.Request) {
		h.refreshes.Add(1)
		if h.onRefresh != nil {
			h.onRefresh(w, req, h.issuer.Handler())
			return
		}
		h.issuer.Handler().ServeHTTP(w, req)
	})
	srv := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()

	transport := &http.Transport{}
	if p, ok := ln.(*pipes); ok {
		transport.DialContext = p.dial
	} else {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		}
	}
	h.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = r.Shutdown(context.Background())
		_ = srv.Close()
		<-served
		_ = h.log.Close()
		if _, ok := ln.(*pipes); ok {
			time.Sleep(2 * time.Second) // the deadlines of unread connections pass, in fake time
		}
	})
	return h
}

func (h *house) count(e wsauth.Event) {
	n, _ := h.audit.LoadOrStore(e.Kind, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

func (h *house) events(kind wsauth.EventKind) int64 {
	if n, ok := h.audit.Load(kind); ok {
		return n.(*atomic.Int64).Load()
	}
	return 0
}

// put writes the device's file: a new pair.
func (h *house) put() refresh.Pair {
	h.t.Helper()
	p, err := h.issuer.Issue(h.t.Context(), refresh.Grant{Subject: "pi-1"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(p.Token, p.ExpiresAt.Unix(), p.RefreshToken)
	return p
}

func (h *house) write(token string, expires int64, refresh string) {
	h.t.Helper()
	data, err := json.MarshalIndent(map[string]any{"token": token, "expires_at": expires, "refresh_token": refresh}, "", "  ")
	if err == nil {
		err = os.WriteFile(h.file, data, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

type onDisk struct {
	Token        string `json:"token"`
	RefreshToken string `json:"refresh_token"`
}

func (h *house) read() (p onDisk) {
	h.t.Helper()
	data, err := os.ReadFile(h.file)
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *house) credential() *publish.Credential {
	h.t.Helper()
	c, err := publish.NewCredential(publish.CredentialConfig{
		File: h.file, RefreshURL: "http://" + origin + "/auth/refresh", Client: h.client, Logger: slog.New(slog.NewTextHandler(h.logs, nil)),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// whole is longer than any test takes, in fake time. After it, a test fails.
const whole = 24 * time.Hour

// run calls publish.Run in a goroutine. wait returns its error.
func (h *house) run(ctx context.Context, source publish.Source, tokens publish.Tokens) (wait func() error) {
	ctx, cancel := context.WithTimeout(ctx, whole)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- publish.Run(ctx, publish.Config{
			URL: "ws://" + origin + "/ws", Tokens: tokens, Source: source, Client: h.client,
			Logger: slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	return func() error { return <-done }
}

// expect fails the test unless the relay's log gets the numbers from 0 to last,
// each once and in order.
func (h *house) expect(ctx context.Context, last int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, whole)
	defer cancel()
	r := h.log.Reader(history.Oldest())
	for want := 0; want <= last; {
		b, err := r.Next(ctx)
		if err != nil {
			h.t.Errorf("after %d messages: %v\n%s", want, err, h.logs)
			return
		}
		if b.Missed > 0 {
			h.t.Fatalf("the test itself missed %d", b.Missed)
		}
		for _, e := range b.Entries {
			var m wire.Message
			if err := json.Unmarshal(relay.Shown(e.Data), &m); err != nil || m.Text != strconv.Itoa(want) {
				h.t.Fatalf("got %q, want %d", m.Text, want)
			}
			want++
		}
	}
}

// ticking is numbers at a pace.
type ticking struct {
	numbers
	pace time.Duration
}

func (s *ticking) Next(ctx context.Context) (wire.Message, error) {
	timer := time.NewTimer(s.pace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return wire.Message{}, ctx.Err()
	case <-timer.C:
		return s.numbers.Next(ctx)
	}
}

// pipes is a listener in memory, whose connections testing/synctest can wait
// for. A bare net.Pipe would not do: two ends that ping each other in the same
// moment, as they do in fake time, both wait for the other to read.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	down   atomic.Bool // no new connections
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if p.down.Load() {
		return nil, errors.New("network is unreachable")
	}
	a, b := net.Pipe()
	ours, theirs := buffer(a), buffer(b)
	var err error
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = ours.Close(), theirs.Close()
	return nil, err
}

// buffered is an end of a pipe that takes what is written as a kernel does,
// without waiting for the other end to read it.
type buffered struct {
	net.Conn
	mu     sync.Mutex
	data   []byte
	closed bool
	more   chan struct{}
}

func buffer(end net.Conn) net.Conn {
	b := &buffered{Conn: end, more: make(chan struct{}, 1)}
	go b.pump()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.data = append(b.data, p...)
	b.wake()
	return len(p), nil
}

// Close lets what was written arrive, if the other end reads it soon.
func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
	_ = b.Conn.SetReadDeadline(time.Unix(1, 0))
	return b.Conn.SetWriteDeadline(time.Now().Add(time.Second))
}

func (b *buffered) wake() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

func (b *buffered) pump() {
	defer b.Conn.Close()
	for range b.more {
		b.mu.Lock()
		data, closed := b.data, b.closed
		b.data = nil
		b.mu.Unlock()
		var err error
		if len(data) > 0 {
			_, err = b.Conn.Write(data)
		}
		if err != nil || closed {
			b.mu.Lock()
			b.closed = true
			b.mu.Unlock()
			return
		}
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7777} }

// holdsNo fails if the log quotes one of the secrets.
func (h *house) holdsNo(secrets ...string) {
	h.t.Helper()
	for _, s := range secrets {
		if strings.Contains(h.logs.String(), s) {
			h.t.Error("the log holds a token")
		}
	}
}

// drop cuts the connection without an answer, as if the answer were lost.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// discarded is a ResponseWriter that discards the answer.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (d discarded) WriteHeader(int)             {}

// expectKept is expect for the entries that the log has now. It accepts that
// the oldest were dropped.
func (h *house) expectKept(t *testing.T, last int) {
	t.Helper()
	b, err := h.log.Reader(history.Oldest()).Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := last + 1 - len(b.Entries)
	for i, e := range b.Entries {
		var m wire.Message
		if err := json.Unmarshal(relay.Shown(e.Data), &m); err != nil || m.Text != strconv.Itoa(first+i) {
			t.Fatalf("got %q, want %d", m.Text, first+i)
		}
	}
}

// until is a source that ends when done returns true.
type until struct {
	ticking
	done func() bool
}

func (s *until) Next(ctx context.Context) (wire.Message, error) {
	if s.done() {
		return wire.Message{}, io.EOF
	}
	return s.ticking.Next(ctx)
}
