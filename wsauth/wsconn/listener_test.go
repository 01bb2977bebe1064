package wsconn_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// A server that ends TLS behind Listener keeps every bound.
func TestOverTLS(t *testing.T) {
	secure = true
	defer func() { secure = false }()
	for _, row := range []struct {
		name string
		test func(*testing.T)
	}{
		{"StartFrame", TestStartFrame},
		{"StartFrameStalls", TestStartFrameStalls},
		{"StartFrameAfterDeadline", TestStartFrameAfterDeadline},
		{"CloseWaitsForBegunFrame", TestCloseWaitsForBegunFrame},
		{"FramesDoNotInterleave", TestFramesDoNotInterleave},
		{"FrameLengths", TestFrameLengths},
		{"BinaryMessages", TestBinaryMessages},
		{"RefusedMessages", TestRefusedMessages},
		{"EarlyMessage", TestEarlyMessage},
		{"FloodWithTheHandshake", TestFloodWithTheHandshake},
		{"HostilePeers", TestHostilePeers},
		{"ThousandHostilePeers", TestThousandHostilePeers},
		{"CloseWithoutReader", TestCloseWithoutReader},
		{"PeerCloses", TestPeerCloses},
		{"LimitsFollowTheSession", TestLimitsFollowTheSession},
		{"StalledPublisherEnds", TestStalledPublisherEnds},
	} {
		t.Run(row.name, row.test)
	}
}

// A TLS client that keeps up costs no goroutine, with any version of TLS.
func TestListenerNeedsNoGoroutine(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			leakCheck(t)
			s := serveTLS(t, orderly, func(s *httptest.Server) {
				s.Listener = wsconn.Listener(s.Listener)
				s.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
			}, func(conn *wsconn.Conn) {
				for i := range 10 {
					if waited, err := post(t, conn, numbered(i, 100*i)); waited || err != nil {
						t.Errorf("frame %d waited %t, %v", i, waited, err)
					}
				}
				_, _ = conn.Read(context.Background())
				_ = conn.Close(1000, "")
			})
			peer := dialTLS(t, s)
			for i := range 10 {
				if _, payload, err := peer.recv(); err != nil || payload != fmt.Sprintf("%06d%s", i, strings.Repeat("x", 100*i)) {
					t.Fatalf("frame %d: %.10q %v", i, payload, err)
				}
			}
			peer.Write(frame(opText, "thanks"))
			peer.wantClose(t, 1000, "")
		})
	}
}

func TestListenerAllocates(t *testing.T) {
	secure = true
	defer func() { secure = false }()
	conn, peer := started(t, wsconn.Config{})
	go io.Copy(io.Discard, peer)
	f, done := numbered(0, 10), func(error) {}
	n := testing.AllocsPerRun(100, func() {
		if _, err := conn.StartFrame(f, done); err != nil {
			t.Error(err)
		}
	})
	if n > 1 { // the race detector empties the pool of crypto/tls at times
		t.Errorf("%v allocations", n)
	}
}

// Requests are served as without Listener, in both versions of HTTP, and the
// connections go through their states.
func TestListenerServesHTTP(t *testing.T) {
	leakCheck(t)
	large := strings.Repeat("large ", 1<<18)
	for _, row := range []struct {
		why   string
		tls   bool
		h2    bool
		proto string
	}{
		{"plain HTTP", false, false, "HTTP/1.1"},
		{"TLS", true, false, "HTTP/1.1"},
		{"HTTP/2", true, true, "HTTP/2.0"},
	} {
		var idle, closed atomic.Int64
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body)
			fmt.Fprint(w, r.Proto, " ", len(text), " ", large)
		}))
		s.Listener = wsconn.Listener(s.Listener)
		s.EnableHTTP2 = row.h2
		s.Config.ConnState = func(c net.Conn, state http.ConnState) {
			if _, ok := c.(*tls.Conn); ok != row.tls {
				t.Errorf("%s: a %T", row.why, c)
			}
			switch state {
			case http.StateIdle:
				idle.Add(1)
			case http.StateClosed:
				closed.Add(1)
			}
		}
		if row.tls {
			s.StartTLS()
		} else {
			s.Start()
		}
		for range 3 {
			res, err := s.Client().Post(s.URL, "text/plain", strings.NewReader(large))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if want := fmt.Sprint(row.proto, " ", len(large), " ", large); err != nil || string(text) != want {
				t.Errorf("%s: %.20q, %v", row.why, text, err)
			}
		}
		eventually(t, "an idle connection", func() bool { return idle.Load() > 0 })
		s.Client().CloseIdleConnections()
		s.Close()
		eventually(t, "its end", func() bool { return closed.Load() > 0 })
	}
}

// What TLS writes by itself waits for no client and is bounded: a client that
// asks for any number of key updates, and reads no answer, is given up.
func TestListenerIsBounded(t *testing.T) {
	leakCheck(t)
	ended := make(chan error, 1)
	cfg := wsconn.Config{SendBuffer: 16 << 10, WriteTimeout: 50 * time.Millisecond, PingInterval: time.Hour}
	s := serveTLS(t, cfg, func(s *httptest.Server) {
		// On a Unix socket, the buffer for the client is full soon. Over TCP, a
		// full one also delays what the client sends.
		dir, err := os.MkdirTemp("", "s") // a short path
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s.Listener.Close()
		ln, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		s.Listener = wsconn.Listener(ln)
	}, func(c *wsconn.Conn) {
		var err error
		for err == nil {
			var msg []byte
			if msg, err = c.Read(context.Background()); string(msg) == "done" {
				err = errors.New("everything was answered")
			}
		}
		_ = c.Abort()
		ended <- err
	})
	peer := newUpdater(t, s.Listener.Addr())
	sent := error(nil)
	for i := 0; i < 4000 && sent == nil; i++ { // more than the buffer holds, and what is kept
		if sent = peer.update(t); sent == nil && i%10 == 0 {
			sent = peer.say(t, "x") // after 16 of them without data, TLS gives up by itself
		}
	}
	if sent == nil {
		_ = peer.say(t, "done")
	}
	within(t, "the end", func() {
		// TLS goes on reading with the old keys if it cannot answer.
		if err := <-ended; !strings.Contains(err.Error(), "bad record MAC") && !errors.Is(err, wsconn.ErrStalled) {
			t.Errorf("reading ends with %v", err)
		}
	})
}

// updater is a client of TLS 1.3 that encrypts by itself, because crypto/tls
// sends no key updates.
type updater struct {
	net.Conn
	secret []byte
	seq    uint64
}

// newUpdater opens a WebSocket with crypto/tls, and goes on with its keys.
func newUpdater(t *testing.T, addr net.Addr) *updater {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var keys bytes.Buffer
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys})
	hello(t, secure)
	if secure.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine prefers another cipher suite")
	}
	u := &updater{Conn: conn, seq: 1} // the request was the record 0
	for line := range strings.Lines(keys.String()) {
		if words := strings.Fields(line); words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			u.secret, err = hex.DecodeString(words[2])
		}
	}
	if u.secret == nil || err != nil {
		t.Fatal("no secret: ", err)
	}
	return u
}

// expand is HKDF-Expand-Label of RFC 8446, section 7.1.
func (u *updater) expand(t *testing.T, label string, n int) []byte {
	label = "tls13 " + label
	key, err := hkdf.Expand(sha256.New, u.secret, string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// send sends a record (RFC 8446, section 5.2).
func (u *updater) send(t *testing.T, kind byte, content []byte) error {
	t.Helper()
	block, err := aes.NewCipher(u.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := u.expand(t, "iv", 12)
	for i := range 8 {
		nonce[4+i] ^= byte(u.seq >> (56 - 8*i))
	}
	u.seq++
	plain := append(bytes.Clone(content), kind)
	head := []byte{23, 3, 3, 0, byte(len(plain) + aead.Overhead())}
	_, err = u.Write(aead.Seal(bytes.Clone(head), nonce, plain, head))
	return err
}

// update asks the server for a key update, and uses its own next key.
func (u *updater) update(t *testing.T) error {
	t.Helper()
	err := u.send(t, 22, []byte{24, 0, 0, 1, 1})
	u.secret, u.seq = u.expand(t, "traffic upd", 32), 0
	return err
}

func (u *updater) say(t *testing.T, text string) error {
	t.Helper()
	return u.send(t, 23, frame(opText, text))
}

// icebox is a listener of connections whose process is stopped when a write
// times out, until thaw is closed and some time has passed.
type icebox struct {
	net.Listener
	frozen, thaw chan struct{}
}

func (l icebox) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return ice{conn, l}, nil
}

type ice struct {
	net.Conn
	box icebox
}

func (i ice) SyscallConn() (syscall.RawConn, error) { return i.Conn.(syscall.Conn).SyscallConn() }

func (i ice) Write(b []byte) (int, error) {
	n, err := i.Conn.Write(b)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case i.box.frozen <- struct{}{}:
		default: // a later freeze
		}
		<-i.box.thaw
		time.Sleep(100 * time.Millisecond) // more than a tenth of WriteTimeout
	}
	return n, err
}

// As without TLS, a write that waited while the process was stopped goes on if
// the client has made room meanwhile.
func TestFrozenWriteOverTLS(t *testing.T) {
	leakCheck(t)
	const frames = 200
	written := make(chan error, 1)
	var box icebox
	s := serveTLS(t, wsconn.Config{SendBuffer: 16 << 10, WriteTimeout: 500 * time.Millisecond, CloseGrace: patience}, func(s *httptest.Server) {
		box = icebox{s.Listener, make(chan struct{}, 1), make(chan struct{})}
		s.Listener = wsconn.Listener(box)
	}, func(conn *wsconn.Conn) {
		var err error
		for i := 0; i < frames && err == nil; i++ {
			_, err = post(t, conn, numbered(i, 40_000))
		}
		written <- err
		_, _ = conn.Read(context.Background())
		_ = conn.Close(1000, "")
	})
	peer := dialTLS(t, s)
	<-box.frozen
	for i := range frames {
		if _, payload, err := peer.recv(); err != nil || !strings.HasPrefix(payload, fmt.Sprintf("%06d", i)) {
			t.Fatalf("frame %d: %.10q %v", i, payload, err)
		}
		if i == 0 {
			close(box.thaw) // now there is room
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	peer.Write(frame(opText, "thanks"))
	peer.wantClose(t, 1000, "")
}
