package doctor_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/doctor"
)

// listen calls handle for every connection until the test ends.
func listen(t *testing.T, handle func(net.Conn)) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() { defer conn.Close(); handle(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "http://" + ln.Addr().String()
}

// hang reads until the peer or the test ends the connection.
func hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// flood sends text repeatedly until the connection ends.
func flood(c net.Conn, text string) {
	block := []byte(strings.Repeat(text, max(1, 64<<10/len(text))))
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// TestUnreachable runs the doctor against servers whose first answer cannot be
// read.
func TestUnreachable(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"tarpit":       hang,
		"cut":          func(net.Conn) {},
		"garbage":      func(c net.Conn) { flood(c, "\x00\xff\x1b]0;x\x07") },
		"other banner": func(c net.Conn) { fmt.Fprint(c, "220 mail.example ESMTP\r\n"); hang(c) },
		"endless head": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n"); flood(c, "X-A: b\r\n") },
		"endless line": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-A: "); flood(c, "b") },
		"slow head":    func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("b", 1<<20)) },
		"no end":       func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"); hang(c) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := listen(t, handle)
			for _, u := range []string{url, strings.Replace(url, "http", "https", 1)} {
				_, err := doctor.Run(t.Context(), doctor.Config{URL: u, Timeout: 200 * time.Millisecond})
				if !errors.Is(err, doctor.ErrUnreachable) {
					t.Errorf("%s: got %v, want ErrUnreachable", u, err)
				} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
					t.Errorf("%s: control characters in %q", u, err)
				}
			}
		})
	}
}

// drip sends text one byte at a time, fast enough that no single read times
// out.
func drip(c net.Conn, text string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		<-tick.C
	}
}

// hostile returns a server that answers requests with page, and upgrades with
// socket.
func hostile(page func(net.Conn, *http.Request), socket func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if req.Header.Get("Upgrade") == "" {
				page(c, req)
				continue
			}
			sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
			socket(c)
			hang(c)
			return
		}
	}
}

func fine(c net.Conn, r *http.Request) {
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

// TestHostile runs the doctor against servers that answer the first request and
// then attack. The report must be complete, and must not hold characters that
// control a terminal.
func TestHostile(t *testing.T) {
	frames := func(b ...byte) func(net.Conn) {
		return func(c net.Conn) { _, _ = c.Write(b) }
	}
	first := func(then func(net.Conn, *http.Request)) func(net.Conn, *http.Request) {
		var met sync.Map // the addresses that have answered
		return func(c net.Conn, r *http.Request) {
			if _, again := met.LoadOrStore(c.LocalAddr().String(), true); !again {
				fine(c, r)
				return
			}
			then(c, r)
		}
	}
	for name, handle := range map[string]func(net.Conn){
		"silent afterwards": hostile(first(func(c net.Conn, _ *http.Request) { hang(c) }), func(net.Conn) {}),
		"cut afterwards":    hostile(first(func(c net.Conn, _ *http.Request) { c.Close() }), func(c net.Conn) { c.Close() }),
		"huge pages":        hostile(func(c net.Conn, _ *http.Request) { fmt.Fprint(c, "HTTP/1.0 404 Not Found\r\n\r\n"); flood(c, "a") }, func(net.Conn) {}),
		"steering": hostile(func(c net.Conn, _ *http.Request) {
			fmt.Fprint(c, "HTTP/1.1 404 \x1b[2J\r\nServer: \x1b[31mx/1\u202e\r\nContent-Length: 0\r\n\r\n")
		}, func(c net.Conn) { c.Write(text("\x1b[2J{\"error\":\"\x1b\"}")) }),
		"endless text":      hostile(fine, func(c net.Conn) { flood(c, string(text(strings.Repeat("a", 60_000)))) }),
		"endless pings":     hostile(fine, func(c net.Conn) { flood(c, "\x89\x00") }),
		"endless fragments": hostile(fine, func(c net.Conn) { flood(c, "\x01\x01a\x00\x01a") }),
		"announced 2^63":    hostile(fine, frames(0x81, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)),
		"announced 2^64-1":  hostile(fine, frames(0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)),
		"half a header":     hostile(fine, frames(0x81)),
		"close of one byte": hostile(fine, frames(0x88, 1, 3)),
		"unknown opcode":    hostile(fine, frames(0x83, 0)),
		"random":            hostile(fine, func(c net.Conn) { b := make([]byte, 1<<16); rand.Read(b); _, _ = c.Write(b) }),
		"a million messages": hostile(fine, func(c net.Conn) {
			c.Write(text(`{"type":"history","messages":[` + strings.Repeat("{},", 1_000_000) + `{}]}`))
		}),
		"deep":          hostile(fine, func(c net.Conn) { c.Write(text(`{"type":"history","messages":` + strings.Repeat("[", 1<<20))) }),
		"no messages":   hostile(fine, func(c net.Conn) { c.Write(text(`{"type":"history"}`)) }),
		"strange types": hostile(fine, func(c net.Conn) { c.Write(text(`{"type":"history","messages":[1,null,"a",{"timestamp":"x"}]}`)) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var report doctor.Report
			var err error
			// A slow machine needs more time for the first answer.
			for timeout := 300 * time.Millisecond; timeout < testkit.Patience; timeout *= 4 {
				report, err = doctor.Run(t.Context(), doctor.Config{URL: listen(t, handle), Timeout: timeout, Token: "a.b.c"})
				if err == nil || name == "huge pages" || name == "steering" {
					break
				}
			}
			if err != nil && name != "huge pages" && name != "steering" {
				t.Fatal(err)
			}
			if err == nil && !report.Failed() {
				t.Error("the report has no failure")
			}
			var out bytes.Buffer
			if err := errors.Join(report.WriteText(&out, false), report.WriteJSON(&out)); err != nil {
				t.Error(err)
			}
			for _, r := range out.String() {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Fatalf("%q in\n%s", r, out.String())
				}
			}
			for _, item := range report.Items {
				if item.Seen == "" || item.Seen == "not reached" {
					t.Errorf("%s has no finding: %+v", item.ID, item)
				}
			}
		})
	}
}

// text returns s as one unmasked text frame.
func text(s string) []byte {
	n := uint64(len(s))
	b := []byte{0x81, 127}
	for i := 7; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return append(b, s...)
}

// Total limits the whole run, even if Timeout is longer, and no goroutine is
// left.
func TestTotal(t *testing.T) {
	before := runtime.NumGoroutine()
	url := listen(t, hostile(fine, func(net.Conn) {}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Run(ctx, doctor.Config{URL: url}); !errors.Is(err, doctor.ErrUnreachable) {
		t.Errorf("cancelled before: %v", err)
	}
	report, err := doctor.Run(t.Context(), doctor.Config{URL: url, Timeout: time.Hour, Total: 3 * time.Second})
	if err != nil || !report.Failed() {
		t.Errorf("out of time: %v, %v", report.Count, err)
	}
	testkit.Eventually(t, "only the goroutines of the listener and its last connection are left", func() bool {
		return runtime.NumGoroutine() <= before+2
	})
}

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://art.example": "https://art.example/", "http://127.0.0.1:3000/": "http://127.0.0.1:3000/", "https://art.example/relay": "https://art.example/relay/",
		"art.example": "", "ftp://art.example": "", "https://": "", "https://a@art.example": "", "https://art.example?x=y": "", "https://art.example/#a": "",
		"https:art.example": "", "": "", "https://art.example:port": "",
	} {
		u, err := doctor.ParseURL(in)
		if (err != nil) != (want == "") || err == nil && u.String() != want {
			t.Errorf("%q: got %v, %v, want %q", in, u, err, want)
		}
	}
}

// Only the outcome is in colour.
func TestColour(t *testing.T) {
	r := doctor.Report{URL: "https://art.example/", Count: map[doctor.Outcome]int{}, Items: []doctor.Item{
		{ID: "origin", Checklist: "pre-deployment", Outcome: doctor.Fail, Seen: "a page may connect", Mend: "mend it"},
	}}
	var plain, colour bytes.Buffer
	if err := errors.Join(r.WriteText(&plain, false), r.WriteText(&colour, true)); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("\x1b[1;31m", "", "\x1b[0m", "").Replace(colour.String()); got != plain.String() || strings.Count(colour.String(), "\x1b") != 2 {
		t.Errorf("with colour:\n%q\nwithout:\n%q", colour.String(), plain.String())
	}
}
