package transports_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/interop/transports"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

var (
	secret = []byte("a secret of the tests, long enough to be one")
	other  = []byte("another secret of the tests, as long as that")
)

// start is the time at which every bubble begins.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// verifier returns a verifier, which is also a signer.
func verifier(key []byte, devices ...string) (*jwtauth.Verifier, error) {
	return jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{Secret: key}}, Subjects: devices, SubjectClaim: "device"})
}

func tokens(t testing.TB, key []byte, devices ...string) *jwtauth.Verifier {
	t.Helper()
	v, err := verifier(key, devices...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// token returns a token of a verifier of its own, whose devices, keys and times
// may differ from the gate's.
func token(t testing.TB, device string, key []byte, expires time.Time) string {
	t.Helper()
	text, err := tokens(t, key, device).SignAt(
		wsauth.ClaimSet{Subject: device, Scope: []string{wsauth.Publish}, ExpiresAt: expires}, expires.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func tokenFrame(token string) []byte { return frame(opText, `{"token":"`+token+`"}`) }

func authenticated(expires time.Time) answer {
	return answer{opText, fmt.Sprintf(`{"status":"authenticated","expires_at":%d}`, expires.Unix())}
}

var (
	refused    = answer{opText, `{"error":"Authentication failed"}`}
	notJSON    = answer{opText, `{"error":"Invalid JSON"}`}
	unsettled  = []answer{refused, {opClose, closing(4401, "")}}
	farewell   = answer{opClose, closing(1000, "")}
	goodbye    = frame(opClose, closing(1000, ""))
	tooBig     = answer{opClose, closing(1009, "")}
	notText    = answer{opClose, closing(1003, "")}
	badPayload = answer{opClose, closing(1007, "")}
)

// listen runs a session, and sends every message back that the session may
// publish. It returns the error that ended the session.
func listen(gate *wsauth.Gate, conn transports.Conn) error {
	s := gate.Attach(conn, wsauth.Peer{})
	defer s.Close(1000, "")
	for {
		msg, err := s.Next(context.Background())
		if err != nil {
			return err
		}
		if err := s.Authorize(wsauth.Publish); err != nil {
			return err
		}
		if err := s.Reply(context.Background(), msg); err != nil {
			return err
		}
	}
}

// On every transport, a conversation with the gate has the same frames. If the
// peer answers the close frame, the end takes no time. If it cannot answer, the
// end takes the grace.
func TestConversation(t *testing.T) {
	hour := start.Add(time.Hour)
	good := tokenFrame(token(t, "pi-1", secret, hour))
	ok := authenticated(hour)
	text := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	join := func(frames ...[]byte) []byte { return slices.Concat(frames...) }

	for _, row := range []struct {
		name  string
		send  []byte
		want  []answer
		err   error // the error of Next; nil for the peer's close
		takes time.Duration
	}{
		{"handshake and publish", join(good, frame(opText, `{"text":"hi"}`), goodbye),
			[]answer{ok, {opText, `{"text":"hi"}`}, farewell}, nil, 0},
		{"in fragments, with a ping between", join(good, fragments(`{"text":`, `"hi"}`), frame(opPing, "1"), goodbye),
			[]answer{ok, {opText, `{"text":"hi"}`}, {opPong, "1"}, farewell}, nil, 0},
		{"nothing at all", goodbye, []answer{farewell}, nil, 0},

		{"unknown device", tokenFrame(token(t, "pi-3", secret, hour)), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"bad signature", tokenFrame(token(t, "pi-1", other, hour)), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"expired", tokenFrame(token(t, "pi-1", secret, start)), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"malformed", tokenFrame("a.b.c"), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"no text", frame(opText, `{"token":5}`), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"no token", frame(opText, `{"text":"hi"}`), unsettled, wsauth.ErrAuthenticationFailed, 0},

		{"refresh", join(good, tokenFrame(token(t, "pi-1", secret, hour.Add(time.Minute))), frame(opText, `1`), goodbye),
			[]answer{ok, authenticated(hour.Add(time.Minute)), {opText, `1`}, farewell}, nil, 0},
		{"refresh by another device", join(good, tokenFrame(token(t, "pi-2", secret, hour))),
			append([]answer{ok}, unsettled...), wsauth.ErrAuthenticationFailed, 0},

		{"not JSON", join(good, frame(opText, `{`)), []answer{ok, notJSON, badPayload}, wsauth.ErrInvalidJSON, 0},
		{"not JSON, before a token", frame(opText, `hi`), []answer{notJSON, badPayload}, wsauth.ErrInvalidJSON, 0},
		{"not UTF-8", join(good, frame(opText, "\"\xff\"")), []answer{ok, notJSON, badPayload}, wsauth.ErrInvalidUTF8, 0},
		{"binary", join(good, frame(opBinary, `{"text":"hi"}`)), []answer{ok, notJSON, notText}, wsauth.ErrBinary, 0},
		{"binary, in the midst of it", join(good, header(opBinary, 100)), []answer{ok, notJSON, notText}, wsauth.ErrBinary, grace},

		{"as big as may be before a token", frame(opText, text(4096)), unsettled, wsauth.ErrAuthenticationFailed, 0},
		{"too big before a token", frame(opText, text(4097)), []answer{tooBig}, wsauth.ErrTooBig, 0},
		{"too big in fragments", fragments(text(4096), "x"), []answer{tooBig}, wsauth.ErrTooBig, 0},
		{"too big, announced only", append(header(opText, 1<<40), text(4097)...), []answer{tooBig}, wsauth.ErrTooBig, grace},
		{"as big as may be after a token", join(good, frame(opText, text(65536)), goodbye),
			[]answer{ok, {opText, text(65536)}, farewell}, nil, 0},
		{"too big after a token", join(good, frame(opText, text(65537))), []answer{ok, tooBig}, wsauth.ErrTooBig, 0},

		{"what follows a close", join(good, goodbye, frame(opText, `{"text":"late"}`)), []answer{ok, farewell}, nil, 0},
		{"what follows a refusal", join(tokenFrame("a.b.c"), good, frame(opText, `{"text":"late"}`)), unsettled,
			wsauth.ErrAuthenticationFailed, 0},
	} {
		onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
			t.Run(row.name, func(t *testing.T) {
				gate, err := wsauth.New(wsauth.Config{Verifier: tokens(t, secret, "pi-1", "pi-2")})
				if err != nil {
					t.Fatal(err)
				}
				s.inBubble(t, func(t *testing.T, conn transports.Conn, p *peer) {
					ended := make(chan struct{})
					go func() { defer close(ended); err = listen(gate, conn) }()
					got := p.converse(t, row.send, true)
					if !slices.Equal(got, row.want) {
						t.Errorf("got  %.200q\nwant %.200q", got, row.want)
					}
					<-ended
					if elapsed := time.Since(start); elapsed != row.takes {
						t.Errorf("the end came after %v, want %v", elapsed, row.takes)
					}
				})
				switch {
				case row.err == nil && closeCode(err) != 1000:
					t.Errorf("Next ended with %v, want the peer's close", err)
				case row.err != nil && !errors.Is(err, row.err):
					t.Errorf("Next ended with %v, want %v", err, row.err)
				}
			})
		})
	}
}

// closeCode returns the code with which the peer has closed, or 0.
func closeCode(err error) int {
	if closed, ok := errors.AsType[*wsadapter.CloseError](err); ok {
		return closed.Code
	}
	if closed, ok := errors.AsType[*wsconn.CloseError](err); ok {
		return closed.Code
	}
	return 0
}

// A foreign page gets the status 403 without a body.
func TestForeignOrigin(t *testing.T) {
	onEach(t, wsadapter.Config{}, func(t *testing.T, s stage) {
		server := httptest.NewServer(s.server.Serve(behindMiddleware(func(w http.ResponseWriter, r *http.Request) {
			if conn, err := s.up(w, r); err == nil {
				t.Error("admitted")
				conn.Abort()
			}
		})))
		defer server.Close()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, handshake+"Origin: https://evil.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusForbidden || string(body) != "Forbidden\n" || err != nil {
			t.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
	})
}
