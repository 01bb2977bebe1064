package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
)

// exchange sends bytes to addr and reads until the connection ends.
func exchange(t *testing.T, addr, send string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	speak(t, conn, send)
}

func speak(t *testing.T, conn net.Conn, send string) {
	t.Helper()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(conn, send); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, conn)
}

// disagree makes a TLS handshake that should fail. It reads until the server
// has closed the connection, which the server does after it has logged why.
func disagree(t *testing.T, addr string, cfg *tls.Config) (failed error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	if failed = tls.Client(conn, cfg).HandshakeContext(t.Context()); failed != nil {
		_, _ = io.Copy(io.Discard, conn)
	}
	return failed
}

// A stranger cannot fill the log: a line that it can cause as often as it likes
// is written ten times a minute, in few bytes, and the others are counted. The
// count is written when the server stops, beside no address but theirs.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	const events = 150
	ca := newCA(t)
	encrypted := func(c *config.Config) { ca.files(1).use(c) }
	long := strings.Repeat("x", 12_000)
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, row := range []struct {
		name   string
		change func(*config.Config)
		msg    string // of all lines
		each   func(t *testing.T, s *testSite)
	}{
		{"no TLS", encrypted, "TLS handshake failed", func(t *testing.T, s *testSite) { exchange(t, s.addr, "no TLS at all\r\n\r\n") }},
		{"no common version of TLS", encrypted, "TLS handshake failed", func(t *testing.T, s *testSite) {
			if disagree(t, s.addr, &tls.Config{RootCAs: ca.pool, ServerName: "localhost", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}) == nil {
				t.Error("an old version is accepted")
			}
		}},
		{"a client that does not trust", encrypted, "TLS handshake failed", func(t *testing.T, s *testSite) {
			if disagree(t, s.addr, &tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}) == nil {
				t.Error("a certificate of no one is trusted")
			}
		}},
		{"no preface of HTTP/2", encrypted, "HTTP/2 connection failed", func(t *testing.T, s *testSite) {
			conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: ca.pool, NextProtos: []string{"h2"}})
			if err != nil {
				t.Fatal(err)
			}
			speak(t, conn, strings.Repeat("no preface", 10))
		}},
		{"no upgrade", nil, "upgrade failed", func(t *testing.T, s *testSite) {
			exchange(t, s.addr, "GET /ws HTTP/1.1\r\nConnection: close\r\nHost: "+long+"\r\n\r\n")
		}},
		{"another method", nil, "upgrade failed", func(t *testing.T, s *testSite) {
			exchange(t, s.addr, long+" /ws HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n")
		}},
		{"a handshake without a key", func(c *config.Config) { crowded(c); c.MaxAttempts = 10_000 }, "upgrade failed", func(t *testing.T, s *testSite) {
			exchange(t, s.addr, "GET /ws HTTP/1.1\r\nHost: x\r\n"+strings.ReplaceAll(upgrade, "dGhl", "")+"Connection: close\r\n\r\n")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, began := start(t, row.change), time.Now()
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					for range events / 10 {
						row.each(t, s)
					}
				})
			}
			all.Wait()
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			lines, count := 0, 0
			for line := range strings.Lines(s.logs.String()) {
				var e struct {
					Msg, Addr  string
					Suppressed int
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(e.Msg, "http") || len(line) > 2000 {
					t.Errorf("a line of net/http, or a long one: %.300s", line)
				}
				if e.Msg == row.msg {
					lines++
					count += max(e.Suppressed, 1)
					if e.Addr != "127.0.0.1" {
						t.Errorf("the address is missing: %s", line)
					}
				}
			}
			if lines > 11*(1+int(time.Since(began)/time.Minute)) || count != events {
				t.Errorf("%d lines of %d events, want at most 11 of %d:\n%.2000s", lines, count, events, s.logs)
			}
		})
	}
}

// The log and the metrics say why all clients of a proxy count as one: what it
// sends cannot be read, or it sends nothing and is over a limit itself. Neither
// is told of more often than an operator can read.
func TestPooledClientsAreTold(t *testing.T) {
	const requests = 60
	const unreadable, refused = "unreadable forwarding header", "a trusted proxy itself was refused"
	for _, row := range []struct {
		why       string
		header    []string
		msg       string // the beginning of the message; empty if nothing is told
		metric    string
		n, before int // requests of the kind, and those that are admitted
	}{
		{"no address", []string{"X-Forwarded-For", "192.0.2.1, visitor"}, unreadable, `forwarding_unreadable_total{reason="not an address"}`, requests, 0},
		{"obfuscated", []string{"X-Forwarded-For", "unknown"}, unreadable, `forwarding_unreadable_total{reason="obfuscated or unknown"}`, requests, 0},
		{"two addresses of one client", []string{"X-Real-IP", "192.0.2.1, 192.0.2.2"}, unreadable, `forwarding_unreadable_total{reason="more than one value"}`, requests, 0},
		{"also refused as a client", []string{"X-Forwarded-For", "unknown"}, refused, `proxies_refused_total`, requests, 10},
		{"no header", nil, refused, `proxies_refused_total`, requests, 10},
		{"a readable header", []string{"X-Forwarded-For", "192.0.2.1"}, "", `proxies_refused_total`, 0, 0},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *config.Config) { trustLoopback(c); c.MaxAttempts, c.RateWindow = 10, 24*time.Hour })
			began := time.Now()
			for range requests + row.before {
				r := httptest.NewRequest("GET", "/ws", nil)
				r.RemoteAddr = "127.0.0.1:1"
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
				for i := 0; i < len(row.header); i += 2 {
					r.Header.Set(row.header[i], row.header[i+1])
				}
				s.srv.Handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			if n := s.operator().metric("relayguard_" + row.metric); int(n) != row.n {
				t.Errorf("%s is %v, want %d", row.metric, n, row.n)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			lines := 0
			for line := range strings.Lines(s.logs.String()) {
				told := strings.Contains(line, `"msg":"`+unreadable) || strings.Contains(line, `"msg":"`+refused)
				if row.msg == "" && told {
					t.Errorf("told without a cause: %s", line)
				}
				if row.msg != "" && strings.Contains(line, `"msg":"`+row.msg) {
					if lines++; !strings.Contains(line, `"addr":"127.0.0.1"`) || len(line) > 500 {
						t.Error(line)
					}
				}
			}
			if most := 11 + int(time.Since(began)/time.Second); row.msg != "" && (lines == 0 || lines > most) {
				t.Errorf("%d lines, want 1 to %d", lines, most)
			}
		})
	}
}

// Beside the name of a client there is its own count, in the log and in the
// trail. The refusals of more clients than are counted one by one are told
// together, and not beside a name that is none.
func TestRefusalsBelongToTheirClient(t *testing.T) {
	const clients = 600
	synctest.Test(t, func(t *testing.T) {
		logs, told := newLog(), trail.New()
		w, err := watch.New(watch.Config{Log: slog.New(slog.NewJSONHandler(logs, nil)), Trail: told, Limits: ratelimit.Config{
			ClientIP: clientip.Behind(clientip.Loopback()...).Addr,
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Limiter().Block(netip.MustParsePrefix("198.18.0.0/15"), time.Time{}); err != nil {
			t.Fatal(err)
		}
		h := w.Limiter().Handler(http.NotFoundHandler())
		for i := range clients {
			r := httptest.NewRequest("GET", "/ws", nil)
			r.RemoteAddr = "127.0.0.1:1"
			r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.18.%d.%d", i/250, i%250))
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		time.Sleep(time.Hour) // all bursts have ended
		synctest.Wait()
		entries, _ := told.Newest(trail.Length, time.Time{})
		logged := logs.Events("connection refused")
		if len(logged) != len(entries) || len(logged) == 0 {
			t.Fatalf("%d lines, %d entries", len(logged), len(entries))
		}
		total := uint64(0)
		for i, e := range logged {
			entry := entries[i]
			total += entry.Count
			_, notNetwork := netip.ParsePrefix(entry.Addr)
			if e["client"] != entry.Addr || uint64(e["suppressed"].(float64))+1 != entry.Count || entry.Outcome != string(ratelimit.ReasonBlocked) ||
				(notNetwork != nil) != (entry.Addr == "others") || entry.Addr != "others" && entry.Count != 1 {
				t.Errorf("logged %v, in the trail %+v", e, entry)
			}
		}
		if total != clients {
			t.Errorf("%d refusals are told, want %d", total, clients)
		}
	})
}
