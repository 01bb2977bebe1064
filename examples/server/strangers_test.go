package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
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
			if conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
				conn.Close()
				t.Error("an old version is accepted")
			}
		}},
		{"a client that does not trust", encrypted, "TLS handshake failed", func(t *testing.T, s *testSite) {
			if conn, err := tls.Dial("tcp", s.addr, &tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
				conn.Close()
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
