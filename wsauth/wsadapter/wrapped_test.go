package wsadapter_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

// Before it is adapted, the library writes the 101. After that, it can write
// control frames only, and its deadlines and Close have no effect of their own.
func TestLibraryWrites(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				rw := adapter.Wrap(hijackable{httptest.NewRecorder(), ours, ""})
				ws := upgrade(t, rw)
				peer := &client{theirs, bufio.NewReader(theirs)}
				go io.WriteString(ws, "HTTP/1.1 101 Switching Protocols\r\n")
				if line, _, err := peer.r.ReadLine(); string(line) != "HTTP/1.1 101 Switching Protocols" || err != nil {
					t.Error(string(line), err)
				}
				conn := form.adapt(rw, ws)
				if again := form.adapt(rw, ws); again != conn {
					t.Error("the second Conn is another one")
				}
				end := read(conn)
				_ = ws.SetDeadline(time.Unix(1, 0))
				_ = ws.SetReadDeadline(time.Unix(1, 0))
				_ = ws.SetWriteDeadline(time.Unix(1, 0))
				if _, err := ws.Write([]byte("\x81\x02hi")); err == nil {
					t.Error("the library can write a message")
				}
				go conn.Write(t.Context(), []byte("hi"))
				peer.want(t, opText, "hi")
				peer.want(t, opPing, "") // only one
				go conn.Write(t.Context(), []byte("ho"))
				peer.want(t, opText, "ho")
				ws.Close()
				if err := <-end; !errors.Is(err, wsadapter.ErrClosed) {
					t.Error(err)
				}
				peer.wantEnd(t)
			})
		})
	}
}

// A connection that is closed before it is adapted is closed.
func TestClosedBeforeAdapted(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	rw := adapter.Wrap(hijackable{httptest.NewRecorder(), ours, ""})
	upgrade(t, rw).Close()
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A ResponseWriter finds the Hijacker and the WriteHeaderNow of gin below other
// wrappers.
func TestBelowWrappers(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	below := &gin{ResponseWriter: flusher{hijackable{httptest.NewRecorder(), ours, ""}}}
	rw := adapter.Wrap(wrapper{wrapper{below}})
	rw.WriteHeaderNow()
	if !below.now {
		t.Error("gin has not sent the status")
	}
	if err := http.NewResponseController(rw).Flush(); err != nil {
		t.Error(err)
	}
	upgrade(t, rw).Close()
	adapter.Wrap(httptest.NewRecorder()).WriteHeaderNow() // not gin
	if _, _, err := adapter.Wrap(httptest.NewRecorder()).Hijack(); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
}

type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type flusher struct{ hijackable }

func (flusher) Flush() {}

type gin struct {
	http.ResponseWriter
	now bool
}

func (g *gin) Unwrap() http.ResponseWriter { return g.ResponseWriter }
func (g *gin) WriteHeaderNow()             { g.now = true }

// layer is a connection above a socket whose own Close waits for the client, as
// that of TLS does. A limiter counts the calls of Close.
type layer struct {
	net.Conn
	gone   chan struct{}
	once   sync.Once
	closed int
}

func (l *layer) NetConn() net.Conn { return &below{l.Conn, l} }

func (l *layer) Close() error {
	l.closed++
	<-l.gone
	return nil
}

type below struct {
	net.Conn
	l *layer
}

func (b *below) Close() error {
	b.l.once.Do(func() { close(b.l.gone) })
	return b.Conn.Close()
}

// Abort and the end of the grace close the socket first, so that no layer above
// it waits for the client, and then each layer once.
func TestLayers(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(wsauth.Conn) error{
		"abort": wsauth.Conn.Abort,
		"close": func(c wsauth.Conn) error { return c.Close(1000, "") },
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			raw := &layer{Conn: ours, gone: make(chan struct{})}
			rw := adapter.Wrap(hijackable{httptest.NewRecorder(), raw, ""})
			conn := wsadapter.Gorilla(gorilla{upgrade(t, rw)}, rw)
			for range 2 {
				if err := end(conn); err != nil {
					t.Error(name, err)
				}
			}
			if raw.closed != 1 {
				t.Errorf("%s: closed %d times", name, raw.closed)
			}
		})
	}
}

// After a panic in the library, the library is not called again, and the
// connection can be closed in order.
func TestPanicInTheLibrary(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		rw := adapter.Wrap(hijackable{httptest.NewRecorder(), ours, ""})
		conn := wsadapter.Gorilla(bomb{gorilla{upgrade(t, rw)}}, rw)
		func() {
			defer func() {
				if p := recover(); p != "reading" {
					t.Error("recovered", p)
				}
			}()
			_, _ = conn.Read(t.Context())
		}()
		if _, err := conn.Read(t.Context()); !errors.Is(err, wsadapter.ErrClosed) {
			t.Error(err)
		}
		go conn.Close(1011, "")
		peer := &client{theirs, bufio.NewReader(theirs)}
		peer.want(t, opClose, closing(1011, ""))
		peer.Write(frame(opClose, ""))
		peer.wantEnd(t)
	})
}

type bomb struct{ gorilla }

func (bomb) NextReader() (int, io.Reader, error) { panic("reading") }

// freezer is the connection of a process that is stopped at a moment for a
// time. As in such a process, a deadline that has passed meanwhile ends a read
// or write before it looks at the socket.
type freezer struct {
	net.Conn
	at, until time.Time
}

func (f *freezer) Read(b []byte) (int, error) {
	return f.run(func() (int, error) { return f.Conn.Read(b) })
}

func (f *freezer) Write(b []byte) (int, error) {
	return f.run(func() (int, error) { return f.Conn.Write(b) })
}

func (f *freezer) run(do func() (int, error)) (int, error) {
	n, err := do()
	if now := time.Now(); errors.Is(err, os.ErrDeadlineExceeded) && !now.Before(f.at) && now.Before(f.until) {
		time.Sleep(f.until.Sub(now))
	}
	return n, err
}

func frozen(t *testing.T, at, length time.Duration, f func(conn *wsadapter.Conn, peer *client, start time.Time)) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		start := time.Now()
		raw := &freezer{ours, start.Add(at), start.Add(at + length)}
		rw := adapter.Wrap(hijackable{httptest.NewRecorder(), raw, ""})
		conn := wsadapter.Gorilla(gorilla{upgrade(t, rw)}, rw)
		defer theirs.Close()
		defer conn.Abort()
		f(conn, &client{theirs, bufio.NewReader(theirs)}, start)
	})
}

// A client whose answer arrived while the process was stopped stays connected,
// and one that has not answered is still given up.
func TestFreeze(t *testing.T) {
	for _, row := range []struct {
		why        string
		at, length time.Duration // of the freeze; the ping is sent after 30 s
		answer     time.Duration // when the answer arrives, 0 for never
		dropped    time.Duration // 0: not
	}{
		{"answered while stopped", 31 * time.Second, time.Minute, time.Minute, 0},
		{"answered while stopped at the end of the time", 39500 * time.Millisecond, time.Hour, 40 * time.Minute, 0},
		{"answered just after", 31 * time.Second, time.Minute, 91*time.Second + 500*time.Millisecond, 0},
		{"not answered", 31 * time.Second, time.Minute, 0, 92 * time.Second},
		{"answered too late, and not stopped", time.Hour, time.Minute, 41 * time.Second, 40 * time.Second},
	} {
		frozen(t, row.at, row.length, func(conn *wsadapter.Conn, peer *client, start time.Time) {
			end := read(conn)
			peer.want(t, opPing, "")
			var answering sync.WaitGroup
			defer answering.Wait()
			if row.answer > 0 {
				answering.Go(func() {
					time.Sleep(time.Until(start.Add(row.answer)))
					peer.Write(frame(opPong, ""))
				})
			}
			if row.dropped == 0 {
				peer.want(t, opPing, "") // the next one
				return
			}
			err := <-end
			if after := time.Since(start); after != row.dropped || !errors.Is(err, wsadapter.ErrUnresponsive) {
				t.Errorf("%s: dropped after %v: %v", row.why, after, err)
			}
		})
	}
}

// A write that waited while the process was stopped goes on if the client has
// made room meanwhile.
func TestFrozenWrite(t *testing.T) {
	for _, reads := range []bool{true, false} {
		frozen(t, 5*time.Second, time.Minute, func(conn *wsadapter.Conn, peer *client, start time.Time) {
			var reading sync.WaitGroup
			reading.Go(func() {
				if time.Sleep(66 * time.Second); reads {
					peer.recv()
				}
			})
			defer reading.Wait()
			err := conn.Write(t.Context(), []byte("hello"))
			if after := time.Since(start); reads && err != nil || !reads && (!errors.Is(err, wsadapter.ErrStalled) || after != 75*time.Second) {
				t.Errorf("reads: %t, after %v: %v", reads, after, err)
			}
		})
	}
}

// If a middleware hides the connection, the library must not send a 101 first:
// the client would wait on a connection that no one serves.
func TestNoHijacker(t *testing.T) {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		t.Fatal(err)
	}
	hidden := httptest.NewRecorder()
	rw := adapter.Wrap(hidden)
	rw.Header().Set("Upgrade", "websocket")
	rw.Header().Set("Connection", "Upgrade")
	rw.WriteHeader(http.StatusSwitchingProtocols)
	if _, _, err := rw.Hijack(); err == nil {
		t.Error("hijacked a recorder")
	}
	http.Error(rw, "no", http.StatusInternalServerError)
	if hidden.Code != http.StatusInternalServerError || hidden.Header().Get("Upgrade") != "" || hidden.Header().Get("Connection") != "" {
		t.Errorf("%d %v", hidden.Code, hidden.Header())
	}
}
