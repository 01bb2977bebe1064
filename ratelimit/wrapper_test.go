package ratelimit_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/ratelimit"
)

// TestHalfClose passes a connection of which one half is closed through
// httputil.ReverseProxy, which needs the method CloseWrite of the hijacked
// connection (golang/go#35892).
func TestHalfClose(t *testing.T) {
	late := make(chan string, 1)
	backend := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "upgrade")
		w.Header().Set("Upgrade", "u")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "hello")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(rw)
		late <- string(b)
	}))
	u, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	for _, row := range []struct {
		name   string
		nested bool
		tls    bool
	}{{"TCP", false, false}, {"TCP, two limiters", true, false}, {"TLS", false, true}} {
		t.Run(row.name, func(t *testing.T) {
			l := newLimiter(t, ratelimit.Config{})
			h := l.Handler(proxy)
			if row.nested {
				h = newLimiter(t, ratelimit.Config{}).Handler(h)
			}
			front := httptest.NewUnstartedServer(h)
			var c net.Conn
			var err error
			if row.tls {
				front.StartTLS()
				c, err = tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			} else {
				front.Start()
				c, err = net.Dial("tcp", front.Listener.Addr().String())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer front.Close()
			defer c.Close()
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: u\r\n\r\n")
			br := bufio.NewReader(c)
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(res, err)
			}
			if got, err := io.ReadAll(br); string(got) != "hello" || err != nil {
				t.Errorf("until the half-close: %q, %v", got, err)
			}
			if got := l.Stats().Open; got != 1 {
				t.Errorf("%d slots held by a connection that is half open", got)
			}
			io.WriteString(c, "late")
			c.(interface{ CloseWrite() error }).CloseWrite()
			if got := <-late; got != "late" {
				t.Errorf("after the half-close, %q arrives", got)
			}
		})
	}
}

// TestOptionalInterfaces checks that the wrappers have the optional methods of
// what they wrap, and do not claim those that it lacks.
func TestOptionalInterfaces(t *testing.T) {
	type pushed struct{ writer, conn map[string]bool }
	look := func(w http.ResponseWriter) (has pushed) {
		has.writer = make(map[string]bool)
		_, has.writer["Flusher"] = w.(http.Flusher)
		_, has.writer["FlushError"] = w.(interface{ FlushError() error })
		_, has.writer["Hijacker"] = w.(http.Hijacker)
		_, has.writer["ReaderFrom"] = w.(io.ReaderFrom)
		_, has.writer["StringWriter"] = w.(io.StringWriter)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return has
		}
		defer c.Close()
		has.conn = make(map[string]bool)
		_, has.conn["ReaderFrom"] = c.(io.ReaderFrom)
		_, has.conn["WriterTo"] = c.(io.WriterTo)
		_, has.conn["CloseWriter"] = c.(interface{ CloseWrite() error })
		_, has.conn["syscall.Conn"] = c.(syscall.Conn)
		return has
	}
	for _, row := range []struct {
		name   string
		listen func(net.Listener) net.Listener
	}{
		{"TCP", func(l net.Listener) net.Listener { return l }},
		{"TLS", func(l net.Listener) net.Listener { return l }},
		{"a connection without CloseWrite", func(l net.Listener) net.Listener { return plainListener{l} }},
	} {
		var bare, limited pushed
		answers := make(chan struct{}, 2)
		mux := http.NewServeMux()
		mux.HandleFunc("/bare", func(w http.ResponseWriter, _ *http.Request) { bare = look(w); answers <- struct{}{} })
		mux.Handle("/limited", newLimiter(t, ratelimit.Config{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			limited = look(w)
			answers <- struct{}{}
		})))
		s := httptest.NewUnstartedServer(mux)
		s.Listener = row.listen(s.Listener)
		if row.name == "TLS" {
			s.StartTLS()
		} else {
			s.Start()
		}
		for _, path := range []string{"/bare", "/limited"} {
			s.Client().Get(s.URL + path)
			<-answers
		}
		s.Close()
		for name, has := range bare.writer {
			if has && !limited.writer[name] {
				t.Errorf("%s: the writer lost %s", row.name, name)
			}
		}
		for name, has := range bare.conn {
			if has && !limited.conn[name] {
				t.Errorf("%s: the connection lost %s", row.name, name)
			}
		}
		if limited.conn["CloseWriter"] != bare.conn["CloseWriter"] {
			t.Errorf("%s: CloseWrite is %v, was %v", row.name, limited.conn["CloseWriter"], bare.conn["CloseWriter"])
		}
	}
}

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// later is gin's way: WriteHeader stores the status, and WriteHeaderNow sends
// it.
type later struct {
	http.ResponseWriter
	sent bool
}

func (l *later) WriteHeaderNow() { l.sent = true }

func (l *later) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	return nil, nil, http.ErrNotSupported
}

func TestWriteHeaderNow(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"directly":         func(w http.ResponseWriter) http.ResponseWriter { return w },
		"below middleware": func(w http.ResponseWriter) http.ResponseWriter { return unwrapper{unwrapper{w}} },
	} {
		gin := &later{ResponseWriter: httptest.NewRecorder()}
		newLimiter(t, ratelimit.Config{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.(interface{ WriteHeaderNow() }).WriteHeaderNow()
		})).ServeHTTP(wrap(gin), httptest.NewRequest("GET", "/", nil))
		if !gin.sent {
			t.Errorf("%s: WriteHeaderNow does not arrive", name)
		}
	}
	// Where there is none, nothing happens.
	newLimiter(t, ratelimit.Config{}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(interface{ WriteHeaderNow() }).WriteHeaderNow()
	})).ServeHTTP(unwrapper{liar{httptest.NewRecorder()}}, httptest.NewRequest("GET", "/", nil))
}

// TestCopies sends through the methods that copy on behalf of the system.
func TestCopies(t *testing.T) {
	text := strings.Repeat("0123456789", 10_000)
	l := newLimiter(t, ratelimit.Config{Limit: 100})
	s := serve(t, l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader(text)); n != int64(len(text)) || err != nil {
				t.Errorf("ReadFrom of the writer: %d, %v", n, err)
			}
			io.WriteString(w, "!")
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "go\n")
		if _, err := io.Copy(c, c); err != nil { // WriteTo and ReadFrom
			t.Error(err)
		}
	})))
	res, err := http.Get(s.URL + "/body")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != text+"!" || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
	br := bufio.NewReader(c)
	if line, err := br.ReadString('\n'); line != "go\n" || err != nil {
		t.Fatal(line, err)
	}
	go func() {
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
	}()
	if b, err := io.ReadAll(br); string(b) != text || err != nil {
		t.Errorf("%d bytes come back, %v", len(b), err)
	}
}
