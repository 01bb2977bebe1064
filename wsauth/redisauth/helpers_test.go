package redisauth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

func TestMain(m *testing.M) { redistest.Main(m) }

var (
	ctx0 = context.Background()
	key  = bytes.Repeat([]byte{3}, redisauth.KeySize)
)

// device is a Verifier whose tokens are the names of devices. A token is issued
// when it is shown, unless it ends in "-old": then a minute before.
type device struct{}

func (device) Verify(_ context.Context, token []byte, now time.Time) (wsauth.Identity, error) {
	id := wsauth.Identity{
		Subject: string(token), TokenID: "token-of-" + string(token), Permissions: []string{wsauth.Publish},
		IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	}
	if name, old := strings.CutSuffix(string(token), "-old"); old {
		id.Subject, id.IssuedAt = name, now.Add(-time.Minute)
	}
	return id, nil
}

// settings are the parts of a node's configuration that tests change.
type settings struct {
	redisauth.Config
	gate wsauth.Config
}

// node is one process.
type node struct {
	t      testing.TB
	shared *redisauth.Authority
	gate   *wsauth.Gate
	stop   func() // ends Run
	closed bool

	mu     sync.Mutex
	states []string // what OnState got, the oldest first
}

// start returns a node at the engine, or the proxy, at addr.
func start(t testing.TB, addr string, s settings) *node {
	t.Helper()
	return startWith(t, redistest.Client(t, addr), s)
}

func startWith(t testing.TB, client rueidis.Client, s settings) *node {
	t.Helper()
	n := prepare(t, client, s)
	n.inTouch()
	return n
}

// prepare returns a node that may not be in touch yet.
func prepare(t testing.TB, client rueidis.Client, s settings) *node {
	t.Helper()
	n := &node{t: t}
	s.Client = client
	if s.Key == nil {
		s.Key = key
	}
	s.OnState = func(err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.states = append(n.states, fmt.Sprint(err))
	}
	var err error
	if n.shared, err = redisauth.New(s.Config); err != nil {
		t.Fatal(err)
	}
	s.gate.Verifier, s.gate.Dialect, s.gate.Shared = device{}, wsauth.NoDialect{}, n.shared
	if s.gate.MaxStale == 0 {
		s.gate.MaxStale = 2 * time.Second
	}
	if n.gate, err = wsauth.New(s.gate); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx0)
	var run sync.WaitGroup
	run.Go(func() { n.gate.Run(ctx) })
	n.stop = func() {
		cancel()
		run.Wait()
	}
	t.Cleanup(func() {
		n.stop()
		if !n.closed {
			_ = n.shared.Close() // the engine may be gone
		}
	})
	return n
}

// inTouch waits until the node has loaded everything.
func (n *node) inTouch() {
	n.t.Helper()
	redistest.Wait(n.t, "a node in touch", func() bool { return !unavailable(n.verify("anybody")) })
}

// verify shows the token of a device, in a request.
func (n *node) verify(token string) error {
	_, err := n.gate.Verify(ctx0, []byte(token), time.Now())
	return err
}

// refuses waits until the node refuses the old token of a device.
func (n *node) refuses(name string) {
	n.t.Helper()
	redistest.Wait(n.t, "a node that refuses "+name, func() bool { return reasonOf(n.verify(name+"-old")) == wsauth.ReasonRevoked })
}

func (n *node) close() {
	n.t.Helper()
	n.closed = true
	if err := n.shared.Close(); err != nil {
		n.t.Error(err)
	}
}

// state returns what OnState got.
func (n *node) state() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.states)
}

func reasonOf(err error) wsauth.Reason {
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		return refused.Reason
	}
	return ""
}

func unavailable(err error) bool {
	_, ok := errors.AsType[*wsauth.UnavailableError](err)
	return ok
}

// publisher is the client of a session, whose messages are published as a relay
// does.
type publisher struct {
	t    testing.TB
	s    *wsauth.Session // nil if it was refused
	in   chan string
	over chan struct{}
	done chan struct{} // closed when its reader has ended

	waits atomic.Int64 // messages that were read

	mu        sync.Mutex
	code      int
	published []string
	refused   []wsauth.Reason
}

// connect attaches a client that shows a token with its handshake.
func (n *node) connect(token string) *publisher {
	n.t.Helper()
	p := &publisher{t: n.t, in: make(chan string), over: make(chan struct{}), done: make(chan struct{})}
	s, err := n.gate.AttachToken(ctx0, p, wsauth.Peer{Addr: netip.MustParseAddr("198.51.100.77")}, token)
	if err != nil {
		close(p.done)
		return p
	}
	p.s = s
	ctx, cancel := context.WithCancel(ctx0)
	go func() {
		defer close(p.done)
		defer s.Close(1001, "")
		for {
			msg, err := s.Next(ctx)
			if err != nil {
				return
			}
			p.waits.Add(1)
			err = s.AuthorizeWait(ctx, wsauth.Publish)
			p.mu.Lock()
			if err == nil {
				p.published = append(p.published, string(msg))
			} else {
				p.refused = append(p.refused, reasonOf(err))
			}
			p.mu.Unlock()
		}
	}()
	n.t.Cleanup(func() {
		cancel()
		_ = s.Close(1001, "")
		<-p.done
	})
	return p
}

func (p *publisher) say(text string) {
	p.t.Helper()
	read := p.waits.Load()
	p.in <- text
	redistest.Wait(p.t, "a message that is read", func() bool { return p.waits.Load() > read })
}

// fate returns what became of the messages.
func (p *publisher) fate() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.published, p.refused)
}

func (p *publisher) shows(want string) {
	p.t.Helper()
	redistest.Wait(p.t, "messages with the fate "+want, func() bool { return p.fate() == want })
}

// ended waits until the connection is closed with a code.
func (p *publisher) ended(code int) {
	p.t.Helper()
	redistest.Wait(p.t, fmt.Sprint("a close with code ", code), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.code == code
	})
}

func (p *publisher) Read(ctx context.Context) ([]byte, error) {
	select {
	case text := <-p.in:
		return []byte(text), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.over:
		return nil, errors.New("over")
	}
}

func (p *publisher) Write(context.Context, []byte) error { return nil }

func (p *publisher) Close(code int, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.code == 0 {
		p.code = code
		close(p.over)
	}
	return nil
}

func (p *publisher) Abort() error { return p.Close(1006, "") }

// signer signs nothing.
type signer struct{}

func (signer) SignAt(c wsauth.ClaimSet, _ time.Time) (string, error) {
	return "access-token-" + c.TokenID, nil
}

// issuer returns an issuer of the node. Its revocations reach the gate.
func (n *node) issuer() *refresh.Issuer {
	n.t.Helper()
	i, err := refresh.New(refresh.Config{
		Signer: signer{}, Store: n.shared.Families(), Key: key,
		OnRevoked: func(r refresh.Revocation) { n.gate.Revoke(r.Family.Subject, r.IssuedBefore) },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return i
}

// list returns the sessions of all nodes, as "NODE DEVICE", sorted.
func (n *node) list() string {
	all, err := n.gate.AllSessions(ctx0)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, s := range all {
		lines = append(lines, s.Node+" "+s.Identity.Subject)
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

func (n *node) lists(want string) {
	n.t.Helper()
	redistest.Wait(n.t, fmt.Sprintf("a list %q", want), func() bool { return n.list() == want })
}

func grant(subject string) refresh.Grant { return refresh.Grant{Subject: subject} }

// alive reports whether the session may still publish.
func (p *publisher) alive() bool { return p.s.Authorize(wsauth.Publish) == nil }

// readAll returns the files below dir.
func readAll(t testing.TB, dir string) (all [][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// raw returns the secret parts of a refresh token, also in hexadecimal.
func raw(t testing.TB, token string) []string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "rgrt_"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{string(b[:16]), string(b[16:48]), hex.EncodeToString(b[:16]), hex.EncodeToString(b[16:48])}
}
