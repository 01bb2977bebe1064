package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

const invalidJSON = `{"error":"Invalid JSON"}`

// TestHostile sends input that no honest client sends, one row for each kind,
// and checks the exact answer. After each row, a viewer that was connected
// before is still served.
func TestHostile(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { crowded(c); c.MaxAttempts = 10_000 })
	watcher, device := s.viewer(), s.publisher()
	token := func(t *testing.T) string { return `{"token":"` + s.token(testDevice, time.Hour) + `"}` }
	const authenticated = "authenticated"

	text := func(s string) []byte { return clientFrame(finText, []byte(s)) }
	for _, row := range []struct {
		name     string
		trusted  bool // sent after a valid token
		send     []byte
		messages []string // authenticated is the answer to the token
		code     int      // 0: the connection ends without a close frame
	}{
		{"not JSON", false, text(`hello`), []string{invalidJSON}, 1007},
		{"empty", false, text(``), []string{invalidJSON}, 1007},
		{"cut off", false, text(`{"token":"a`), []string{invalidJSON}, 1007},
		{"two values", false, text(`{"token":"a"}{"token":"b"}`), []string{invalidJSON}, 1007},
		{"not UTF-8", false, text("{\"token\":\"\xff\xfe\"}"), []string{invalidJSON}, 1007},
		{"binary", false, clientFrame(finBinary, []byte(`{"token":"a"}`)), []string{invalidJSON}, 1003},
		{"publish before the token", false, text(`{"text":"a"}`), []string{authFailed}, 4401},
		{"no object", false, text(`["token"]`), []string{authFailed}, 4401},
		{"null", false, text(`null`), []string{authFailed}, 4401},
		{"token null", false, text(`{"token":null}`), []string{authFailed}, 4401},
		{"token number", false, text(`{"token":1e999}`), []string{authFailed}, 4401},
		{"token object", false, text(`{"token":{"a":"b"}}`), []string{authFailed}, 4401},
		{"token twice", false, text(`{"token":"a","token":"b"}`), []string{authFailed}, 4401},
		{"other case", false, text(`{"Token":"a"}`), []string{authFailed}, 4401},
		{"too big before the token", false, text(`{"token":"` + strings.Repeat("a", 4<<10) + `"}`), nil, 1009},
		{"deep", false, text(`{"token":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`), []string{invalidJSON}, 1007},
		{"deep, trusted", true, text(`{"text":"a","x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`), []string{authenticated, invalidJSON}, 1007},
		{"unmasked", false, []byte{finText, 2, '{', '}'}, nil, 1002},
		{"reserved bits", false, []byte{0xf1, 0x80, 0, 0, 0, 0}, nil, 1002},
		{"unknown opcode", false, []byte{0x83, 0x80, 0, 0, 0, 0}, nil, 1002},
		{"continuation of nothing", false, []byte{0x80, 0x80, 0, 0, 0, 0}, nil, 1002},
		{"long ping", false, clientFrame(finPing, make([]byte, 126)), nil, 1002},

		{"not JSON, trusted", true, text(`hello`), []string{authenticated, invalidJSON}, 1007},
		{"binary, trusted", true, clientFrame(finBinary, []byte(`{"text":"a"}`)), []string{authenticated, invalidJSON}, 1003},
		{"not UTF-8, trusted", true, text("{\"text\":\"\xc3\x28\"}"), []string{authenticated, invalidJSON}, 1007},
		{"too big", true, text(`{"text":"` + strings.Repeat("a", 64<<10) + `"}`), []string{authenticated}, 1009},
		{"a second token, bad", true, text(`{"token":"bad"}`), []string{authenticated, authFailed}, 4401},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := upgraded(t, s.addr)
			if row.trusted {
				c.write(text(token(t)))
			}
			c.write(row.send)
			messages, code := parse(t, c.rest())
			for i, m := range messages {
				if strings.HasPrefix(m, `{"status":"authenticated"`) {
					messages[i] = authenticated
				}
			}
			if !slices.Equal(messages, row.messages) || code != row.code {
				t.Errorf("got %q and code %d, want %q and %d", messages, code, row.messages, row.code)
			}
		})
	}

	for _, row := range []struct{ name, message, answer string }{
		{"deep", `{"text":"a","x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, ""},
		{"nulls", `{"text":null,"memory":null}`, `text: must be a string`},
		{"duplicate keys", `{"text":"a","text":"b"}`, `message: must not name a field twice`},
		{"huge number", `{"text":"a","memory":{"available_mb":1e999,"percent_used":1,"total_mb":1}}`, `memory.available_mb: must fit a 64-bit float`},
		{"wrong type", `{"text":["a"]}`, `text: must be a string`},
	} {
		t.Run(row.name, func(t *testing.T) {
			device.send(row.message)
			if row.answer == "" {
				watcher.texts(1)
				device.texts(1)
				return
			}
			m := device.await(func(m map[string]any) bool { return m["type"] == nil })
			if m["error"] != "Invalid message format" || m["detail"] != row.answer {
				t.Errorf("got %v, want detail %q", m, row.answer)
			}
		})
	}

	t.Run("a second token", func(t *testing.T) {
		device.send(token(t))
		if m := device.await(func(m map[string]any) bool { return m["type"] == nil }); m["status"] != authenticated {
			t.Errorf("got %v, want a refresh", m)
		}
	})

	t.Run("a frame that never ends", func(t *testing.T) {
		c := upgraded(t, s.addr)
		c.write(text(token(t)))
		frame := text(`{"text":"never finished"}` + strings.Repeat(" ", 10))
		c.write(frame[:len(frame)-5])
		_ = c.conn.(*net.TCPConn).CloseWrite()
		c.rest()
		if s.ends("never finished") {
			t.Error("a part of a frame was taken for a message")
		}
	})

	upgrade := "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	for _, row := range []struct {
		name, send string
		status     int
	}{
		{"upgrade without a key", upgrade + "Sec-WebSocket-Version: 13\r\n\r\n", 400},
		{"upgrade with a short key", upgrade + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGk=\r\n\r\n", 400},
		{"upgrade of another version", upgrade + "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400},
		{"upgrade by POST", strings.Replace(upgrade, "GET", "POST", 1) + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 405},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"100 KB of headers", "GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 100<<10) + "\r\n\r\n", 431},
		{"not HTTP", "\x16\x03\x01\x00\xa5hello\r\n\r\n", 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
			// The server can answer and close before the request is fully
			// written.
			go func() { _, _ = io.WriteString(conn, row.send) }()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != row.status {
				t.Errorf("got %d, want %d", res.StatusCode, row.status)
			}
		})
	}

	t.Run("slow handshake", func(t *testing.T) {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
		_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		// The server closes the connection, with a 408 or without an answer.
		if b, err := io.ReadAll(conn); err != nil || len(b) > 0 && !bytes.Contains(b, []byte(" 408 ")) && !bytes.Contains(b, []byte(" 400 ")) {
			t.Errorf("got %q, %v", b, err)
		}
	})

	device.send(`{"text":"still here"}`)
	if texts, _ := watcher.texts(1); texts[0] != "still here" {
		t.Errorf("the viewer got %q", texts)
	}
}

// The server refuses a token while it writes the history or a published message
// to the connection. It still sends the close frame.
func TestRefusalBesideTheStream(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { crowded(c); c.MaxAttempts = 10_000; c.RateConnections = 10_000 })
	stop := make(chan struct{})
	var published sync.WaitGroup
	published.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := s.srv.History.Append(context.Background(), []byte(`{"text":"a","timestamp":1700000000000}`)); err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		}
	})
	for range 500 {
		if _, code := parse(t, answerTo(t, s, `{"token":"bad"}`)); code != 4401 {
			t.Errorf("code %d, want 4401", code)
			break
		}
	}
	close(stop)
	published.Wait()
}
