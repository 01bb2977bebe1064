package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/internal/leaktest"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// peer is a Conn in the time of synctest, together with a goroutine that reads
// it as a relay does. It records every message to the client with the time
// since its start.
type peer struct {
	*wsauth.Session
	in    chan string
	over  chan struct{}
	once  sync.Once
	start time.Time

	mu    sync.Mutex
	heard []string
	stall chan struct{} // until it is closed, Write and Close do not return
}

func connect(t testing.TB, gate *wsauth.Gate) *peer {
	t.Helper()
	p := &peer{in: make(chan string), over: make(chan struct{}), start: time.Now()}
	p.Session = gate.Attach(p, wsauth.Peer{})
	go func() {
		defer p.Session.Close(1001, "")
		for {
			_, err := p.Next(context.Background())
			if err != nil {
				return
			}
			answer := `{"published":true}`
			if p.Authorize(wsauth.Publish) != nil {
				answer = `{"answer":"viewer"}`
			}
			if p.Reply(context.Background(), []byte(answer)) != nil {
				return
			}
		}
	}()
	return p
}

func (p *peer) say(text string) {
	select {
	case p.in <- text:
	case <-p.over:
	}
	synctest.Wait()
}

func (p *peer) hear(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, time.Since(p.start).String()+" "+fmt.Sprintf(format, args...))
}

// heardSince returns, shortened, what the client has received since the last
// call.
func (p *peer) heardSince() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := p.heard
	p.heard = nil
	for i, h := range heard {
		heard[i] = strings.NewReplacer(`{"status":"`, "", `"expires_at":`, "", `"`, "", `}`, "", `{`, "").Replace(h)
	}
	return heard
}

func (p *peer) expect(t testing.TB, name string, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := p.heardSince(); !slices.Equal(got, want) {
		t.Errorf("%s: heard %q, want %q", name, got, want)
	}
}

func (p *peer) Read(ctx context.Context) ([]byte, error) {
	select {
	case text := <-p.in:
		return []byte(text), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.over:
		return nil, errors.New("over")
	}
}

func (p *peer) Write(ctx context.Context, text []byte) error {
	p.mu.Lock()
	stall := p.stall
	p.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.hear("%s", text)
	return nil
}

func (p *peer) Close(code int, reason string) error {
	p.mu.Lock()
	stall := p.stall
	p.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-p.over:
		}
	}
	p.once.Do(func() {
		p.hear("close %d %s", code, reason)
		close(p.over)
	})
	return nil
}

func (p *peer) Abort() error {
	p.once.Do(func() {
		p.hear("aborted")
		close(p.over)
	})
	return nil
}

// record is an Audit that a test can read meanwhile.
type record struct {
	mu     sync.Mutex
	events []wsauth.Event
}

func (r *record) audit(e wsauth.Event) {
	leaktest.Audited(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// lines returns the events since the last call, as "kind reason device".
func (r *record) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, e := range r.events {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprint(e.Kind, " ", e.Reason, " ", e.Subject)), " "))
	}
	r.events = nil
	return lines
}

// lasting returns the message of a token that is issued now and is valid for
// lifetime.
func lasting(device string, lifetime time.Duration) string {
	now := time.Now()
	return tokenMessage(forge.HS256(common,
		fmt.Sprintf(`{"device":%q,"iat":%d,"exp":%d}`, device, now.Unix(), now.Add(lifetime).Unix()), secret))
}

// newGate returns a gate with a new verifier, and a record of its audit.
func newGate(t testing.TB, cfg wsauth.Config) (*wsauth.Gate, *jwtauth.Verifier, *record) {
	t.Helper()
	v, r := newHS256(t, nil), &record{}
	cfg.Verifier, cfg.Audit = v, r.audit
	gate, err := wsauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return gate, v, r
}
