package wsconn_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A request that is not upgraded gets the text of the status and nothing else.
func TestRefusedUpgrades(t *testing.T) {
	var events []wsauth.Event
	up, err := wsconn.New(wsconn.Config{Audit: func(e wsauth.Event) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"a plain GET", func(r *http.Request) { r.Header = http.Header{} }, 426},
		{"no Upgrade", func(r *http.Request) { r.Header.Del("Upgrade") }, 426},
		{"no Connection", func(r *http.Request) { r.Header.Del("Connection") }, 426},
		{"an upgrade to something else", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, 426},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 1, 0 }, 426},
		{"POST", func(r *http.Request) { r.Method = "POST" }, 405},
		{"no key", func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, 400},
		{"two keys", func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==") }, 400},
		{"a short key", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "AAAA") }, 400},
		{"a key that is no base64", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "<script>") }, 400},
		{"an old version", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, 400},
		{"a foreign page", func(r *http.Request) { r.Header.Set("Origin", "http://evil.test") }, 403},
		{"a writer that cannot be hijacked", func(*http.Request) {}, 500},
	} {
		r, w := upgradeRequest(), httptest.NewRecorder()
		row.change(r)
		conn, err := up.Accept(w, r)
		refused, ok := errors.AsType[*wsconn.UpgradeError](err)
		if conn != nil || !ok || refused.Status != row.status {
			t.Errorf("%s: %v", row.name, err)
		}
		if body := strings.TrimSpace(w.Body.String()); w.Code != row.status || body != http.StatusText(row.status) {
			t.Errorf("%s: answered %d %q", row.name, w.Code, body)
		}
		if row.status == 426 && w.Header().Get("Upgrade") != "websocket" {
			t.Errorf("%s: 426 without Upgrade", row.name)
		}
		if audited := len(events) > 0; audited != (row.status == 403) {
			t.Errorf("%s: audited %v", row.name, events)
		}
		for _, e := range events {
			if e.Kind != wsauth.EventOriginRefused || e.Reason != wsauth.ReasonOrigin || e.Peer.Addr != wsauth.RemoteAddr(r) ||
				e.Time.IsZero() || !strings.Contains(e.Detail, "evil.test") || !strings.Contains(e.Detail, r.Host) {
				t.Errorf("%s: audited %+v", row.name, e)
			}
		}
		events = nil
	}
}

func TestConfigProblems(t *testing.T) {
	_, err := wsconn.New(wsconn.Config{
		WriteTimeout: -1, CloseGrace: -1, PingInterval: -1, PongTimeout: -1, SendBuffer: -1, ReadLimit: -1,
		Origins: wsauth.Origins{Allow: []string{"https://a.test", "*", "null", "a.test", "https://*.test", "https://a.test/"}},
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	var got []string
	for _, e := range joined.Unwrap() {
		_, own := errors.AsType[*wsconn.ConfigError](e)
		_, ofOrigins := errors.AsType[*wsauth.ConfigError](e)
		if !own && !ofOrigins || !errors.Is(e, wsauth.ConfigNegative) && !errors.Is(e, wsauth.ConfigMalformed) {
			t.Errorf("untyped %v", e)
		}
		_, text, _ := strings.Cut(e.Error(), ": ")
		text, _, _ = strings.Cut(text, ": write ")
		got = append(got, text)
	}
	want := []string{
		"Config.WriteTimeout must not be negative", "Config.CloseGrace must not be negative", "Config.PingInterval must not be negative",
		"Config.PongTimeout must not be negative", "Config.SendBuffer must not be negative", "Config.ReadLimit must not be negative",
		"Origins.Allow[1] is malformed", "Origins.Allow[2] is malformed", "Origins.Allow[3] is malformed", "Origins.Allow[4] is malformed",
		"Origins.Allow[5] is malformed",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Any number is a limit.
func TestOddReadLimits(t *testing.T) {
	for limit, want := range map[int64]error{math.MaxInt64: nil, math.MinInt64: wsauth.ErrTooBig, -1: wsauth.ErrTooBig} {
		s := serve(t, orderly, func(c *wsconn.Conn) {
			c.SetReadLimit(limit)
			if msg, err := c.Read(context.Background()); !errors.Is(err, want) || (err == nil) != (len(msg) == 1000) {
				t.Error(limit, len(msg), err)
			}
			c.Close(4000, "")
		})
		c := s.dial(t)
		c.Write(frame(opText, strings.Repeat("x", 1000)))
		c.wantClose(t, 4000, "")
	}
}

// The transport refuses these messages and leaves the connection open for an
// answer.
func TestRefusedMessages(t *testing.T) {
	fragment := frame(opText, "{")
	fragment[0] &^= 0x80
	more := frame(0, strings.Repeat(" ", 4096))
	for _, row := range []struct {
		name string
		wire []byte
		want error
		code int // of the close frame of the transport, or 0
	}{
		{"binary", frame(opBinary, "x"), wsauth.ErrBinary, 0},
		{"broken UTF-8", frame(opText, "\xff"), wsauth.ErrInvalidUTF8, 0},
		{"half a character", frame(opText, "\xe2\x82"), wsauth.ErrInvalidUTF8, 0},
		{"as large as allowed", frame(opText, strings.Repeat("x", 4096)), nil, 0},
		{"larger", frame(opText, strings.Repeat("x", 4097)), wsauth.ErrTooBig, 0},
		{"larger in fragments", slices.Concat(fragment, more), wsauth.ErrTooBig, 0},
		{"announced and never sent", append(header(opText, 1<<40), make([]byte, 4097)...), wsauth.ErrTooBig, 0},
		{"reserved bits", []byte{0xf1, 0x80, 0, 0, 0, 0}, wsconn.ErrProtocol, 1002},
		{"unknown opcode", frame(0x3, ""), wsconn.ErrProtocol, 1002},
		{"continuation of nothing", frame(0x0, "x"), wsconn.ErrProtocol, 1002},
		{"not masked", []byte{0x81, 1, 'x'}, wsconn.ErrProtocol, 1002},
		{"a ping in fragments", []byte{0x09, 0x80, 0, 0, 0, 0}, wsconn.ErrProtocol, 1002},
		{"a ping too long", header(opPing, 126), wsconn.ErrProtocol, 1002},
		{"a close of one byte", frame(opClose, "x"), wsconn.ErrProtocol, 1002},
		{"a negative length", []byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, wsconn.ErrProtocol, 1002},
	} {
		t.Run(row.name, func(t *testing.T) {
			leakCheck(t)
			code := row.code
			s := serve(t, orderly, func(c *wsconn.Conn) {
				_, err := c.Read(context.Background())
				if !errors.Is(err, row.want) {
					t.Errorf("read: %v", err)
				}
				if row.code == 0 {
					if err := c.WriteFrame(wsconn.NewFrame([]byte("sorry"))); err != nil {
						t.Error("no answer possible:", err)
					}
				}
				c.Close(4000, "")
			})
			if code == 0 {
				code = 4000
			}
			c := s.dial(t)
			c.Write(row.wire)
			c.wantClose(t, code, "")
		})
	}
}

func TestCloseReason(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		strings.Repeat("x", 123):       strings.Repeat("x", 123),
		strings.Repeat("x", 200):       strings.Repeat("x", 123),
		strings.Repeat("\u20ac", 100):  strings.Repeat("\u20ac", 41), // 123 bytes
		"x" + strings.Repeat("é", 100): "x" + strings.Repeat("é", 61),
		"a\xffb":                       "a\ufffdb",
	} {
		s := serve(t, orderly, func(c *wsconn.Conn) { c.Close(4000, in) })
		s.dial(t).wantClose(t, 4000, want)
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 2999, 5000, -1, 1 << 20} {
		s := serve(t, orderly, func(c *wsconn.Conn) { c.Close(code, "reason") })
		s.dial(t).wantClose(t, 0, "")
	}
}

// Data that arrives together with the handshake is not lost.
func TestEarlyMessage(t *testing.T) {
	got := make(chan string, 1)
	s := serve(t, brief, func(c *wsconn.Conn) {
		msg, _ := c.Read(context.Background())
		got <- string(msg)
		c.Close(1000, "")
	})
	conn := s.connect(t)
	long := strings.Repeat("x", 2000)
	io.WriteString(conn, handshake+string(frame(opText, long)))
	within(t, "the early message", func() {
		if msg := <-got; msg != long {
			t.Errorf("%q", msg)
		}
	})
}

// Over TLS, Close may wait for the client, and a write cannot continue after a
// timeout.
func TestTLS(t *testing.T) {
	leakCheck(t)
	ended := make(chan struct{})
	s := serveTLS(t, brief, nil, func(conn *wsconn.Conn) {
		go func() {
			for conn.WriteFrame(big) == nil {
			}
			ended <- struct{}{}
		}()
		conn.Close(1001, "")
		ended <- struct{}{}
	})
	dialTLS(t, s)
	within(t, "the end over TLS", func() { <-ended; <-ended })
}
