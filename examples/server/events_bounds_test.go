package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/history"
)

// Streams count for MAX_CONNECTIONS and for UPGRADES_PER_SECOND as sockets do.
func TestEventsOfAllAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { trustLoopback(c); c.MaxConnections = 2 })
	s.viewer(from("192.0.2.1")...)
	second, _ := s.events("", from("192.0.2.2")...)
	if _, res := s.events("", from("192.0.2.3")...); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more than MAX_CONNECTIONS: %s, %v", res.Status, res.Header)
	}
	if p, res := connect(t, s.addr, from("192.0.2.3")...); p != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a socket, if a stream has the last place: %v", res)
	}
	second.cancel()
	testkit.Eventually(t, "admitted after one has left", func() bool {
		_, res := s.events("", from("192.0.2.3")...)
		return res.StatusCode == http.StatusOK
	})

	s = start(t, func(c *config.Config) { crowded(c); c.UpgradesPerSecond = 1 })
	began := time.Now()
	admitted, refused := 0, 0
	for range 60 {
		switch _, res := s.events(""); {
		case res.StatusCode == http.StatusOK:
			admitted++
		case res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "":
			t.Fatalf("refused with %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		default:
			refused++
		}
	}
	if most := 3 + int(time.Since(began)/time.Second); admitted < 2 || admitted > most {
		t.Errorf("%d admitted, want 2 to %d", admitted, most)
	}
	op := s.operator()
	if n := op.metric(`relayguard_connections_refused_total{reason="process"}`); int(n) != refused {
		t.Errorf("%v refusals are counted of %d", n, refused)
	}
	if open, watch := op.metric("relayguard_connections_open"), op.metric("relayguard_viewers_open"); int(open) != admitted || int(watch) != admitted {
		t.Errorf("%v connections and %v viewers are counted of %d", open, watch, admitted)
	}
}

// BROADCAST_DELAY holds for streams: what is erased within it is not shown.
func TestEventsAreDelayed(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { c.Delay = 2 * time.Second })
	stream, _ := s.events("")
	device := s.publisher()
	slip := ""
	for i := 0; ; i++ { // again, if the machine was too slow to erase it in time
		slip = fmt.Sprint("slip ", i)
		device.send(`{"text":"` + slip + `","id":"` + slip + `"}`)
		device.await(func(m map[string]any) bool { return m["ack"] == slip })
		entries := s.srv.History.Since(history.Oldest()).Entries
		last := entries[len(entries)-1]
		if code, out := s.verb("erase", fmt.Sprint(last.Seq)); code != exitOK {
			t.Fatal(out)
		}
		if time.Since(last.At) < s.cfg.Delay {
			break
		}
	}
	sent := time.Now()
	device.send(`{"text":"0"}`)
	for text := ""; text != "0"; {
		texts, _ := stream.texts(1)
		if text = texts[len(texts)-1]; slices.Contains(texts, slip) {
			t.Fatal("what was erased in time is shown")
		}
	}
	if after := time.Since(sent); after < s.cfg.Delay {
		t.Errorf("shown after %v", after)
	}
}

// eventsOver opens a stream over TLS, and fails the test unless it is one of
// HTTP/2, if h2 is set, or of HTTP/1.1. The client keeps little of what it does
// not read.
func (ca *testCA) eventsOver(h2 bool, addr string) *stream {
	ca.t.Helper()
	return ca.eventsBy(&http.Transport{HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}, h2, addr)
}

func (ca *testCA) eventsBy(by *http.Transport, h2 bool, addr string) *stream {
	ca.t.Helper()
	by.TLSClientConfig, by.ForceAttemptHTTP2 = &tls.Config{RootCAs: ca.pool}, h2
	stream, res := events(ca.t, by, "https://"+addr+"/events")
	if stream == nil || (res.ProtoMajor == 2) != h2 {
		ca.t.Fatalf("%s %s", res.Proto, res.Status)
	}
	return stream
}

// freezer is a connection that reads nothing any more once it is frozen. Then
// not even a frame that ends a stream of HTTP/2 can be written to it.
type freezer struct {
	net.Conn
	frozen, closed chan struct{}
	once           sync.Once
}

func (f *freezer) Read(b []byte) (int, error) {
	select {
	case <-f.frozen:
		<-f.closed
		return 0, net.ErrClosed
	default:
		return f.Conn.Read(b)
	}
}

func (f *freezer) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

// frozenEvents opens a stream of HTTP/2 whose client then reads nothing more.
func (ca *testCA) frozenEvents(addr string) {
	ca.t.Helper()
	frozen := make(chan struct{})
	ca.eventsBy(&http.Transport{
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 30, MaxReceiveBufferPerConnection: 1 << 30},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			return &freezer{Conn: conn, frozen: frozen, closed: make(chan struct{})}, nil
		},
	}, true, addr)
	close(frozen)
}

// goodbye is the last event of a stream that the server ends.
func (s *stream) goodbye() (code int, reason string) {
	s.t.Helper()
	for {
		e, ok := s.next()
		if !ok {
			s.t.Fatal("the stream ends without a last event", s.lines.Err())
		}
		if e.name != "close" {
			continue
		}
		var why struct {
			Code   int
			Reason string
		}
		if err := json.Unmarshal([]byte(e.data), &why); err != nil {
			s.t.Fatalf("%+v: %v", e, err)
		}
		if _, more := s.next(); more || s.lines.Err() != nil {
			s.t.Errorf("the stream is not whole: %v", s.lines.Err())
		}
		return why.Code, why.Reason
	}
}

// Over the server's own TLS, a stream passes by either version of HTTP.
func TestEventsOverTLS(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for _, h2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			ca := *ca
			ca.t = t
			s := start(t, func(c *config.Config) { crowded(c); ca.files(1).use(c) })
			stream := ca.eventsOver(h2, s.addr)
			device := ca.peer(s.addr)
			device.authenticate(s.token(testDevice, time.Hour))
			for i := range 50 {
				device.send(`{"text":"` + strconv.Itoa(i) + `"}`)
				stream.wants(i, 1)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			if code, reason := stream.goodbye(); code != 1001 || !strings.HasPrefix(reason, "retry=") {
				t.Errorf("%d %q", code, reason)
			}
		})
	}
}

// A client of HTTP/2 that takes nothing is given up as others are, and delays
// neither them nor the end of the server.
func TestEventsOfAStalledClientOverHTTP2(t *testing.T) {
	t.Parallel()
	stalled := func(ca *testCA, addr string) { ca.eventsOver(true, addr) }
	for _, row := range []struct {
		wait time.Duration
		open func(*testCA, string)
		end  string
		why  string
	}{
		{time.Second, stalled, "too slow", "a write lasts too long"},
		{time.Hour, stalled, "", "the server stops first"},
		{time.Second, (*testCA).frozenEvents, "too slow", "a write to a connection lasts too long"},
		{time.Hour, (*testCA).frozenEvents, "", "the server stops first, and the connection takes nothing"},
	} {
		t.Run(row.why, func(t *testing.T) {
			ca := newCA(t)
			s := start(t, func(c *config.Config) { crowded(c); c.WriteWait = row.wait; ca.files(1).use(c) })
			row.open(ca, s.addr)
			testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Watching() == 1 })
			device, other := ca.peer(s.addr), ca.peer(s.addr)
			device.authenticate(s.token(testDevice, time.Hour))
			long := strings.Repeat("x", 15<<10)
			say := func() {
				device.send(`{"text":"` + long + `"}`)
				other.texts(1)
				device.texts(1)
			}
			if row.end != "" {
				testkit.Eventually(t, "the stalled client is given up", func() bool {
					say()
					return s.srv.Relay.Stats().Ended[row.end] == 1
				})
				return
			}
			for range 20 { // more than the client takes
				say()
			}
			go s.stop()
			testkit.Eventually(t, "the server ends the stalled stream", func() bool { return s.srv.Relay.Len() == 0 })
		})
	}
}

// A stream leaves no goroutine, however it ends. The test would take the streams
// of other tests for its own, so it is not parallel to them.
func TestEventsLeaveNoGoroutine(t *testing.T) {
	s := start(t, func(c *config.Config) { crowded(c); trustLoopback(c) })
	left, _ := s.events("", from("192.0.2.1")...)
	blocked, _ := s.events("", from("192.0.2.2")...)
	stopped, _ := s.events("", from("192.0.2.3")...)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Watching() == 3 })
	s.publisher().send(`{"text":"0"}`)
	for _, stream := range []*stream{left, blocked, stopped} {
		stream.wants(0, 1)
	}
	if !strings.Contains(stacks(), "relay.(*stream).follow") {
		t.Fatal("the test does not see the goroutines of streams")
	}
	left.cancel()
	if code, out := s.verb("block", "192.0.2.2"); code != exitOK {
		t.Fatal(out)
	}
	if code, reason := blocked.goodbye(); code != 1008 || reason != "blocked" {
		t.Errorf("%d %q", code, reason)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	stopped.goodbye()
	testkit.Eventually(t, "no goroutine is left", func() bool {
		all := stacks()
		return !strings.Contains(all, "relay.(*stream)") && !strings.Contains(all, "relay.(*courier)") && !strings.Contains(all, "relay.(*Relay).events")
	})
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	for b := make([]byte, 1<<20); ; b = make([]byte, 2*len(b)) {
		if n := runtime.Stack(b, true); n < len(b) {
			return string(b[:n])
		}
	}
}
