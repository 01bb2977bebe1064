package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

// All clients together can open no more WebSocket connections than
// MAX_CONNECTIONS. A client that is one too many has done nothing, and is told
// to come back.
func TestConnectionsOfAllAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { trustLoopback(c); c.MaxConnections = 2 })
	op := s.operator()
	first := s.viewer(from("192.0.2.1")...)
	s.viewer(from("192.0.2.2")...)
	if p, res := connect(t, s.addr, from("192.0.2.3")...); p != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("the third: %v", res)
	}
	if limit, refused := op.metric("relayguard_connections_limit"), op.metric(`relayguard_connections_refused_total{reason="total"}`); limit != 2 || refused != 1 {
		t.Errorf("metrics: a limit of %v, %v refused", limit, refused)
	}
	first.leave()
	testkit.Eventually(t, "admitted after one has left", func() bool {
		p, _ := connect(t, s.addr, from("192.0.2.3")...)
		return p != nil
	})
}

// All clients together can open no more WebSocket connections in a second than
// UPGRADES_PER_SECOND, and twice as many at once.
func TestUpgradesOfAllAreBounded(t *testing.T) {
	t.Parallel()
	const clients = 60
	for _, row := range []struct {
		limit int
		why   string
	}{{1, "two, and one for each second"}, {0, "no limit"}} {
		s := start(t, func(c *config.Config) { crowded(c); c.UpgradesPerSecond = row.limit })
		began := time.Now()
		var admitted, refused atomic.Int64
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				switch p, res := connect(t, s.addr); {
				case p != nil:
					admitted.Add(1)
				case res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "":
					t.Errorf("refused with %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
				default:
					refused.Add(1)
				}
			})
		}
		all.Wait()
		least, most := int64(clients), int64(clients)
		if row.limit > 0 {
			least, most = 2, 3+int64(time.Since(began)/time.Second)
		}
		if n := admitted.Load(); n < least || n > most {
			t.Errorf("%s: %d admitted, want %d to %d", row.why, n, least, most)
		}
		if n := s.operator().metric(`relayguard_connections_refused_total{reason="process"}`); int64(n) != refused.Load() {
			t.Errorf("%s: %v refusals are counted of %d", row.why, n, refused.Load())
		}
	}
}

// kept is an HTTP connection that a client keeps open between requests.
type kept struct {
	net.Conn
	*bufio.Reader
}

// ask sends a request and reads the answer. It returns false if the connection
// has ended.
func (k *kept) ask(t *testing.T) bool {
	t.Helper()
	_ = k.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(k, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	res, err := http.ReadResponse(k.Reader, nil)
	if err != nil {
		return false
	}
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || len(body) == 0 {
		t.Fatalf("%s, %q, %v", res.Status, body, err)
	}
	return true
}

func (k *kept) Read(b []byte) (int, error) { return k.Reader.Read(b) }

// A client can keep a hundred HTTP connections open between requests. The
// oldest is closed when there is one more. A trusted proxy, whose connections
// are those of many clients, can keep any number.
func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const most, more = 100, 20
	ca := newCA(t)
	untrusted := func(c *config.Config) { c.Proxies = nil }
	for _, row := range []struct {
		name   string
		change func(*config.Config)
		dial   func(addr string) (net.Conn, error)
		closed int
	}{
		{"plain", untrusted, func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }, more},
		{"TLS", func(c *config.Config) { untrusted(c); ca.files(1).use(c) }, func(addr string) (net.Conn, error) {
			return tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.pool})
		}, more},
		{"a trusted proxy", trustLoopback, func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, row.change)
			op := s.operator()
			var all []*kept
			for i := range most + more {
				conn, err := row.dial(s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				k := &kept{conn, bufio.NewReader(conn)}
				if all = append(all, k); !k.ask(t) {
					t.Fatalf("connection %d is closed", i)
				}
				if row.closed > 0 {
					// The answer may arrive before the connection is idle.
					idle, closed := float64(min(i+1, most)), float64(max(i+1-most, 0))
					testkit.Eventually(t, "the connection is idle", func() bool {
						now := op.scrape()
						return now["relayguard_http_connections_idle"] == idle && now["relayguard_http_connections_closed_total"] == closed
					})
				}
			}
			for i, k := range all {
				if open := i >= row.closed; k.ask(t) != open {
					t.Errorf("connection %d of %d: open %t, want %t", i, len(all), !open, open)
				}
			}
			if n := op.metric("relayguard_http_connections_closed_total"); int(n) != row.closed {
				t.Errorf("%v are counted as closed, want %d", n, row.closed)
			}
			for _, k := range all {
				k.Close()
			}
			testkit.Eventually(t, "nothing is remembered", func() bool { return op.metric("relayguard_http_connections_idle") == 0 })
		})
	}
	t.Run("a WebSocket connection is not idle", func(t *testing.T) {
		s := start(t, untrusted)
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		k := &kept{conn, bufio.NewReader(conn)}
		op := s.operator()
		if !k.ask(t) {
			t.Fatal("no answer")
		}
		testkit.Eventually(t, "idle", func() bool { return op.metric("relayguard_http_connections_idle") == 1 })
		_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if res, err := http.ReadResponse(k.Reader, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(res, err)
		}
		if n := op.metric("relayguard_http_connections_idle"); n != 0 {
			t.Errorf("%v are idle", n)
		}
	})
}
