package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

const secret = "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd"

// leaving is a publisher that is gone as soon as it has sent its messages: no
// answer but that to its token arrives.
type leaving struct {
	messages [][]byte
	answers  int
}

func (l *leaving) Read(context.Context) ([]byte, error) {
	if len(l.messages) == 0 {
		return nil, io.EOF
	}
	next := l.messages[0]
	l.messages = l.messages[1:]
	return next, nil
}

func (l *leaving) Write(context.Context, []byte) error {
	if l.answers++; l.answers > 1 {
		return net.ErrClosed
	}
	return nil
}

func (l *leaving) Close(int, string) error { return nil }
func (l *leaving) Abort() error            { return nil }

// failing is a store that takes nothing.
type failing struct{}

var errDisk = errors.New("the disk is full")

func (failing) Load(context.Context) (history.Saved, error)  { return history.Saved{}, nil }
func (failing) Append(context.Context, history.Entry) error  { return errDisk }
func (failing) Trim(uint64, []history.Pin)                   {}
func (failing) Finish(context.Context) error                 { return nil }
func (failing) Replace(context.Context, history.Saved) error { return nil } // of an empty log
func (failing) Close() error                                 { return nil }

// newTestRelay returns a relay with what cfg lacks, and a token of the device
// pi-1.
func newTestRelay(t testing.TB, cfg Config) (r *Relay, token string) {
	t.Helper()
	return newSharedRelay(t, cfg, nil)
}

// newSharedRelay is newTestRelay with a gate that has a Shared.
func newSharedRelay(t testing.TB, cfg Config, shared wsauth.Shared) (r *Relay, token string) {
	t.Helper()
	tokens, err := verifier()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Gate, err = wsauth.New(wsauth.Config{Verifier: tokens, Shared: shared}); err != nil {
		t.Fatal(err)
	}
	if cfg.Upgrader, err = wsconn.New(wsconn.Config{}); err != nil {
		t.Fatal(err)
	}
	cfg.ClientIP = func(*http.Request) netip.Addr { return netip.Addr{} }
	if r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r, signed(t, time.Hour)
}

// signed returns a token of the device.
func signed(t testing.TB, ttl time.Duration) string {
	t.Helper()
	tokens, err := verifier()
	if err != nil {
		t.Fatal(err)
	}
	token, err := tokens.Sign(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: time.Now().Add(ttl)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func verifier() (*jwtauth.Verifier, error) {
	return jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{Secret: []byte(secret)}}, Subjects: []string{"pi-1"}, SubjectClaim: "device", Roles: map[string][]string{"publisher": {wsauth.Publish}}, DefaultRole: "publisher"})
}

// A publisher that is gone before its answer is no failure of the store, which
// would alert the operator. A store that fails is one, with any publisher.
func TestWhoseFailure(t *testing.T) {
	for _, row := range []struct {
		why         string
		store       history.Store
		message     string
		unpublished uint64
	}{
		{"an acknowledgement that does not arrive", nil, `{"text":"a","id":"1"}`, 0},
		{"an answer to a message that breaks the schema", nil, `{"txt":"a"}`, 0},
		{"a store that fails", failing{}, `{"text":"a","id":"1"}`, 1},
	} {
		t.Run(row.why, func(t *testing.T) {
			log, err := history.Open(t.Context(), history.Config{Store: row.store})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			var logs bytes.Buffer
			r, token := newTestRelay(t, Config{Log: log, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
			peer := &leaving{messages: [][]byte{[]byte(`{"token":"` + token + `"}`), []byte(row.message)}}
			session := r.cfg.Gate.Attach(peer, wsauth.Peer{})
			defer session.Close(1000, "")
			if _, err := r.read(&viewer{session: session, blind: true}, false); err == nil {
				t.Error("the connection goes on")
			}
			if got := r.Stats().Unpublished; got != row.unpublished || bytes.Contains(logs.Bytes(), []byte("publishing failed")) != (row.unpublished > 0) {
				t.Errorf("%d messages count as not stored, want %d; the log:\n%s", got, row.unpublished, &logs)
			}
		})
	}
}
