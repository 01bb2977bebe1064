package sse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/sse"
)

func open(t testing.TB, cfg history.Config) *history.Log {
	t.Helper()
	l, err := history.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *history.Log, data ...string) (last history.Position) {
	t.Helper()
	for _, d := range data {
		var err error
		if last, err = l.Append(context.Background(), []byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

func newServer(t testing.TB, cfg sse.Config) *sse.Server {
	t.Helper()
	s, err := sse.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bubble is a server in a bubble of synctest. Its connections are pipes, so
// that time passes only when nothing can be written.
type bubble struct {
	t      *testing.T
	conns  chan net.Conn
	closed chan struct{}
	client *http.Client
	errs   chan error // what Serve returned
}

func (b *bubble) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}
func (b *bubble) Close() error   { close(b.closed); return nil }
func (b *bubble) Addr() net.Addr { return &net.TCPAddr{} }

func (b *bubble) dial() net.Conn {
	near, far := net.Pipe()
	b.conns <- far
	return near
}

// serve serves log until the end of the test, over HTTP/1.1 or HTTP/2.
func serve(t *testing.T, s *sse.Server, log *history.Log, version int, configure ...func(*http.Server)) *bubble {
	b := &bubble{t: t, conns: make(chan net.Conn), closed: make(chan struct{}), errs: make(chan error, 100)}
	var protocols http.Protocols
	protocols.SetHTTP1(version == 1)
	protocols.SetUnencryptedHTTP2(version == 2)
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.errs <- s.Serve(w, r, log)
	})}
	for _, f := range configure {
		f(server)
	}
	transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return b.dial(), nil
	}}
	b.client = &http.Client{Transport: transport}
	go server.Serve(b)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		synctest.Wait()
	})
	return b
}

// follow opens a stream. The id is that of the client's last event, or empty.
func (b *bubble) follow(id string) (*http.Response, *events) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), "GET", "http://server.example/", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if id != "" {
		req.Header.Set("Last-Event-ID", id)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { resp.Body.Close() })
	return resp, newEvents(resp.Body)
}

// expect reads events that are written as "name:data".
func (e *events) expect(t *testing.T, why string, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := e.next()
		if text := got.name + ":" + got.data; err != nil || text != w {
			t.Fatalf("%s: got %q, %v, want %q", why, text, err, w)
		}
	}
}

func both(t *testing.T, test func(t *testing.T, version int)) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("HTTP/", version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, version) })
		})
	}
}

// A client gets the history and what follows. When it comes back, it gets what
// it missed, whatever happened meanwhile.
func TestStream(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		log := open(t, history.Config{Keep: 3, TrimAt: 3})
		b := serve(t, newServer(t, sse.Config{}), log, version)
		add(t, log, "a", "b\nc")
		resp, e := b.follow("")
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if resp.StatusCode != 200 || resp.ProtoMajor != version || resp.Close != (version == 1) {
			t.Errorf("%s over %s", resp.Status, resp.Proto)
		}
		e.expect(t, "the history", ":a", ":b\nc")
		add(t, log, "d")
		e.expect(t, "live", ":d")
		if e.id != log.Position().String() {
			t.Errorf("the id is %q, want %q", e.id, log.Position())
		}
		resp.Body.Close()

		add(t, log, "e", "f")
		_, e = b.follow(e.id)
		e.expect(t, "what it missed", ":e", ":f")
		add(t, log, "+")
		e.expect(t, "live again, so the next waking is later than now", ":+")
		synctest.Wait() // the stream waits, and so it gets the next entries together
		add(t, log, "g", "h", "i", "j")
		_, late := b.follow(e.id)
		late.expect(t, "more was dropped than is kept", "missed:1", ":h", ":i", ":j")
		e.expect(t, "the first one too, after a wait", "missed:1", ":h", ":i", ":j")

		log.Replace(t.Context(), []byte("two\nlines"), []byte("x"))
		before := e.id
		e.expect(t, "replaced", "reset:two\nlines")
		if e.id != before {
			t.Error("a client that loses the connection now would not get the entries")
		}
		e.expect(t, "replaced", ":x")
		before = e.id
		log.Clear(t.Context(), nil)
		e.expect(t, "cleared", "reset:")
		if e.id == before {
			t.Error("the id of a Clear is not sent, so it would be sent again")
		}
		_, again := b.follow(e.id)
		_, lost := b.follow("made up\u00e9")
		lost.expect(t, "a position of nowhere, and no entries", "reset:")
		_, foreign := b.follow("AAAAAAAAAAEBAQ")
		foreign.expect(t, "a position of another log", "reset:")
		add(t, log, "y")
		for _, r := range []*events{again, lost, foreign} {
			r.expect(t, "then live", ":y")
		}
		_, lost = b.follow("made up")
		lost.expect(t, "a position of nowhere", "reset:", ":y")

		log.Finish(t.Context())
		e.expect(t, "the end", ":y", "end:")
		if got, err := e.next(); err != io.EOF {
			t.Errorf("after the end: %q, %v", got, err)
		}
		if resp, _ := b.follow(e.id); resp.StatusCode != 204 {
			t.Errorf("it comes back after the end: %s", resp.Status)
		}
		_, all := b.follow("")
		all.expect(t, "a new client of a finished log", ":y", "end:")
		_, lost = b.follow("made up")
		lost.expect(t, "a position of nowhere, finished", "reset:", ":y", "end:")
	})
}

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, history.Config{})
		first := add(t, log, "a")
		add(t, log, "b", "c")
		b := serve(t, newServer(t, sse.Config{Start: func(r *http.Request) history.Position {
			if r.URL.Path != "/" {
				t.Error(r.URL)
			}
			return history.Last(1)
		}}), log, 1)
		_, e := b.follow("")
		e.expect(t, "as the service says", ":c")
		_, e = b.follow(first.String())
		e.expect(t, "the client's own position", ":b", ":c")
		_, e = b.follow("made up")
		e.expect(t, "a position of nowhere", "reset:", ":c")
		other := open(t, history.Config{})
		_, e = b.follow(add(t, other, "x").String())
		e.expect(t, "a position of another log, as after a restart", "reset:", ":c")
	})
}

// A client whose connection breaks before the first event goes on where it
// began, and not at the place where it would begin now.
func TestBreakBeforeTheFirstEvent(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		log := open(t, history.Config{Keep: 2, TrimAt: 2})
		add(t, log, "a")
		b := serve(t, newServer(t, sse.Config{Ping: time.Second, Start: func(*http.Request) history.Position { return history.Latest() }}), log, version)
		resp, e := b.follow("")
		go func() { time.Sleep(time.Minute); resp.Body.Close() }()
		e.next()
		add(t, log, "b", "c", "d")
		_, e = b.follow(e.id)
		e.expect(t, "it comes back", "missed:1", ":c", ":d")
	})
}

// A quiet stream has comments, and no timeout of the server ends it.
func TestPing(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		log := open(t, history.Config{})
		b := serve(t, newServer(t, sse.Config{Ping: time.Minute, WriteTimeout: time.Second}), log, version, func(s *http.Server) {
			s.ReadTimeout, s.WriteTimeout, s.ReadHeaderTimeout, s.IdleTimeout = 5*time.Second, 5*time.Second, 5*time.Second, 5*time.Second
		})
		_, e := b.follow("")
		go func() {
			time.Sleep(10*time.Minute + 30*time.Second)
			add(t, log, "a")
			time.Sleep(time.Minute - 1)
			add(t, log, "b") // no comment between the two
			log.Finish(context.Background())
		}()
		e.expect(t, "much later", ":a")
		if e.pings != 10 {
			t.Errorf("%d pings in ten minutes", e.pings)
		}
		e.expect(t, "the end", ":b", "end:")
		if e.pings != 10 {
			t.Error("the time of a ping begins with the last event")
		}
	})
}

// A client that takes nothing is gone after WriteTimeout, and no other client
// notices it.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, history.Config{})
		b := serve(t, newServer(t, sse.Config{WriteTimeout: 10 * time.Second}), log, 1)
		conn := b.dial()
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(conn, make([]byte, 100)) // a part of the head
		start := time.Now()
		_, other := b.follow("")
		add(t, log, "a")
		other.expect(t, "another client", ":a")
		if time.Since(start) != 0 {
			t.Errorf("another client waited for %v", time.Since(start))
		}
		if err := <-b.errs; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestStalledStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := open(t, history.Config{})
		b := serve(t, newServer(t, sse.Config{WriteTimeout: 10 * time.Second}), log, 2)
		b.follow("") // its body is never read
		start := time.Now()
		for range 200 { // more than the client's window of 4 MiB
			add(t, log, strings.Repeat("x", 32<<10))
		}
		if err := <-b.errs; err == nil || time.Since(start) < 10*time.Second || time.Since(start) > 11*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestClientLeaves(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		log := open(t, history.Config{})
		b := serve(t, newServer(t, sse.Config{}), log, version)
		resp, _ := b.follow("")
		synctest.Wait()
		resp.Body.Close()
		if err := <-b.errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// The log is closed at a shutdown. Clients come back later, so this is not the
// end for them.
func TestLogCloses(t *testing.T) {
	both(t, func(t *testing.T, version int) {
		log := open(t, history.Config{})
		add(t, log, "a")
		b := serve(t, newServer(t, sse.Config{}), log, version)
		_, e := b.follow("")
		e.expect(t, "open", ":a")
		log.Close()
		if got, err := e.next(); err != io.EOF {
			t.Errorf("got %q, %v", got, err)
		}
		if err := <-b.errs; !errors.Is(err, history.ErrClosed) {
			t.Error(err)
		}
		resp, _ := b.follow(e.id)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") == "text/event-stream" {
			t.Errorf("%s, %v", resp.Status, resp.Header)
		}
	})
}

func TestMethods(t *testing.T) {
	log := open(t, history.Config{})
	add(t, log, "a")
	server := httptest.NewServer(newServer(t, sse.Config{}).Handler(log))
	defer server.Close()
	for _, row := range []struct {
		method string
		status int
	}{{"HEAD", 200}, {"POST", 405}, {"OPTIONS", 405}} {
		req, _ := http.NewRequest(row.method, server.URL, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != row.status || (resp.Header.Get("Allow") == "GET, HEAD") != (row.status == 405) {
			t.Errorf("%s: %s", row.method, resp.Status)
		}
		resp.Body.Close()
	}
}

// wrapped is a ResponseWriter of a middleware, which records the writes.
type wrapped struct {
	http.ResponseWriter
	writes []int
}

func (w *wrapped) Write(b []byte) (int, error) {
	w.writes = append(w.writes, len(b))
	return w.ResponseWriter.Write(b)
}

type unwrappable struct{ *wrapped }

func (u unwrappable) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// flushable can flush, but has no deadlines.
type flushable struct{ *wrapped }

func (f flushable) Flush() { f.ResponseWriter.(http.Flusher).Flush() }

// deadlines has deadlines, but cannot flush.
type deadlines struct{ *wrapped }

func (d deadlines) SetWriteDeadline(time.Time) error { return nil }

func TestMiddleware(t *testing.T) {
	for _, row := range []struct {
		why    string
		wrap   func(*wrapped) http.ResponseWriter
		status int
	}{
		{"Unwrap", func(w *wrapped) http.ResponseWriter { return unwrappable{w} }, 200},
		{"no Unwrap: deadlines would have no effect", func(w *wrapped) http.ResponseWriter { return w }, 500},
		{"flushing alone", func(w *wrapped) http.ResponseWriter { return flushable{w} }, 500},
		{"deadlines alone", func(w *wrapped) http.ResponseWriter { return deadlines{w} }, 500},
	} {
		log := open(t, history.Config{})
		entry := strings.Repeat("x", 1000)
		for range 500 {
			add(t, log, entry)
		}
		add(t, log, strings.Repeat("y", 200_000))
		log.Finish(t.Context())
		s := newServer(t, sse.Config{})
		result := make(chan error, 1)
		var writes []int
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := &wrapped{ResponseWriter: w}
			err := s.Serve(row.wrap(rec), r, log)
			writes = rec.writes
			result <- err
		}))
		resp, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		serveErr := <-result
		if resp.StatusCode != row.status || err != nil || (row.status == 500) != errors.Is(serveErr, errors.ErrUnsupported) {
			t.Errorf("%s: %s, %v, Serve returned %v", row.why, resp.Status, err, serveErr)
		}
		if row.status == 200 {
			// The long entry is alone in its write.
			i := slices.Index(writes, slices.Max(writes))
			if n := len(writes); n < 9 || n > 12 || writes[i] > 200_100 || slices.Max(slices.Delete(writes, i, i+1)) > 66_000 {
				t.Errorf("%d writes of %v bytes", n, writes)
			}
			if n := strings.Count(string(body), entry); n != 500 {
				t.Errorf("%d entries", n)
			}
		} else if resp.Header.Get("Content-Type") == "text/event-stream" {
			t.Errorf("%s: an error with the type of a stream", row.why)
		}
		resp.Body.Close()
		server.Close()
	}
}

// Every client is told another time to come back.
func TestRetryIsSpread(t *testing.T) {
	log := open(t, history.Config{})
	log.Finish(t.Context())
	server := httptest.NewServer(newServer(t, sse.Config{Retry: 10 * time.Second}).Handler(log))
	defer server.Close()
	times := map[int]bool{}
	for range 20 {
		resp, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		var ms int
		if _, err := fmt.Fscanf(resp.Body, "retry: %d\n", &ms); err != nil || ms < 10_000 || ms >= 20_000 {
			t.Errorf("%d ms, %v", ms, err)
		}
		times[ms] = true
		resp.Body.Close()
	}
	if len(times) < 10 {
		t.Errorf("only %d different times", len(times))
	}
}

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := sse.New(sse.Config{Ping: -1, WriteTimeout: -1, Retry: -1})
	var fields []string
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			var ce *sse.ConfigError
			if errors.As(e, &ce) && errors.Is(e, sse.ConfigNegative) {
				fields = append(fields, ce.Field)
			}
		}
	}
	if want := []string{"Config.Ping", "Config.WriteTimeout", "Config.Retry"}; !slices.Equal(fields, want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
