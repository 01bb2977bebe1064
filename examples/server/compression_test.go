package main

import (
	"bufio"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

const (
	finPacked = 0xc1 // a compressed text message
	offer     = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
)

// watchRaw connects a viewer with more lines in its header.
func (s *testSite) watchRaw(query, lines string) *raw {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	request := strings.Replace(handshake(s.addr), "GET /ws ", "GET /ws"+query+" ", 1)
	if _, err := io.WriteString(conn, strings.TrimSuffix(request, "\r\n")+lines+"\r\n"); err != nil {
		s.t.Fatal(err)
	}
	c := &raw{t: s.t, conn: conn, r: bufio.NewReader(conn)}
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatal(res, err)
	}
	return c
}

// shown is a frame with messages. first is its first byte.
type shown struct {
	first    byte
	Type     string
	Pos      string
	Messages []struct{ Text string }
}

// readShown reads frames until one ends with the text last.
func (c *raw) readShown(last string) (all []shown) {
	c.t.Helper()
	for {
		first, payload := c.readAny()
		if first == finPing {
			continue
		}
		if first == finPacked {
			tail := strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")
			text, err := io.ReadAll(flate.NewReader(io.MultiReader(strings.NewReader(string(payload)), tail)))
			if err != nil {
				c.t.Fatal(err)
			}
			payload = text
		}
		f := shown{first: first}
		if err := json.Unmarshal(payload, &f); err != nil {
			c.t.Fatalf("%v in %q", err, payload)
		}
		all = append(all, f)
		if n := len(f.Messages); n > 0 && f.Messages[n-1].Text == last {
			return all
		}
	}
}

// The history, and what a viewer has missed, come compressed to viewers that
// accept it. A live message, a short history, and all frames to others come as
// they are.
func TestCompression(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	device, watcher := s.publisher(), s.viewer()
	device.send(`{"text":"short"}`)
	watcher.until("short")
	if got := s.watchRaw("", offer).readShown("short"); len(got) != 1 || got[0].first != finText || got[0].Type != "history" {
		t.Errorf("a short history: %+v", got)
	}
	for i := range 299 {
		device.send(fmt.Sprintf(`{"text":"word %d "}`, i))
	}
	watcher.until("word 298 ")

	const (
		safari = "User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 12_2) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.2 Safari/605.1.15\r\n"
		iphone = "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/120.0 Mobile/15E148 Safari/604.1\r\n"
		chrome = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36\r\n"
	)
	pos := ""
	var viewers []*raw
	for _, row := range []struct {
		why, lines string
		first      byte
	}{
		{"no offer", "", finText},
		{"an offer without a browser", offer, finPacked},
		{"Chromium", offer + chrome, finPacked},
		{"Safari fails in some versions", offer + safari, finText},
		{"every browser of iOS is Safari", offer + iphone, finText},
	} {
		c := s.watchRaw("", row.lines)
		viewers = append(viewers, c)
		frames, n := c.readShown("word 298 "), 0
		pos = frames[0].Pos
		for _, f := range frames {
			n += len(f.Messages)
			if f.first != row.first {
				t.Errorf("%s: a frame begins with %#x, want %#x", row.why, f.first, row.first)
			}
		}
		if n != 300 || frames[0].Type != "history" {
			t.Errorf("%s: %d messages, first a frame %s", row.why, n, frames[0].Type)
		}
	}
	missed := s.watchRaw("?since="+url.QueryEscape(pos), offer)
	viewers = append(viewers, missed)
	if got := missed.readShown("word 298 "); len(got) != 1 || got[0].first != finPacked || got[0].Type != "live" || len(got[0].Messages) < 10 {
		t.Errorf("what a viewer has missed: %d frames, the first %+v", len(got), got[0])
	}
	long := strings.Repeat("long ", 500)
	device.send(`{"text":"` + long + `"}`)
	for i, c := range viewers {
		if got := c.readShown(long); len(got) != 1 || got[0].first != finText {
			t.Errorf("viewer %d: a live message in %d frames, the first begins with %#x", i, len(got), got[0].first)
		}
	}
}

func TestCompressionOff(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { c.Compression = false })
	device, watcher := s.publisher(), s.viewer()
	for i := range 100 {
		device.send(fmt.Sprintf(`{"text":"word %d "}`, i))
	}
	watcher.until("word 99 ")
	for _, f := range s.watchRaw("", offer).readShown("word 99 ") {
		if f.first != finText {
			t.Errorf("a frame begins with %#x", f.first)
		}
	}
}
