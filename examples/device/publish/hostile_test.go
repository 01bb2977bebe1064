package publish_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// A relay that sends a message without end gets rid of few bytes, before and
// after it has accepted the token, and none of its forms takes the device's
// memory.
func TestEndlessMessages(t *testing.T) {
	block := make([]byte, 64<<10)
	for name, send := range map[string]func(w io.Writer) error{
		"one frame": func(w io.Writer) error {
			_, err := w.Write([]byte{0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0})
			for err == nil {
				_, err = w.Write(block)
			}
			return err
		},
		"fragments": func(w io.Writer) error {
			first := byte(0x01)
			for {
				if _, err := w.Write(append([]byte{first, 126, 0xff, 0xff}, block[:0xffff]...)); err != nil {
					return err
				}
				first = 0
			}
		},
	} {
		for _, accept := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accepted %v", name, accept), func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), testkit.Patience)
				defer stop()
				var sent atomic.Int64
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, rw := upgrade(t, w, r)
					defer conn.Close()
					if accept {
						text := `{"status":"authenticated"}`
						_, _ = conn.Write(append([]byte{0x81, byte(len(text))}, text...))
					}
					go func() { _, _ = io.Copy(io.Discard, rw) }()
					_ = send(counting{conn, &sent})
					stop()
				}))
				defer srv.Close()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_ = publish.Run(ctx, publish.Config{URL: "ws" + strings.TrimPrefix(srv.URL, "http") + "/ws", Tokens: good, Source: &ticking{numbers{last: 1}, time.Hour}})
				runtime.ReadMemStats(&after)
				// What the device has not read is in the buffers of the
				// sockets.
				if n := sent.Load(); n > 32<<20 {
					t.Errorf("the relay sent %d MiB", n>>20)
				}
				if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
					t.Errorf("%d MiB were allocated", n>>20)
				}
			})
		}
	}
}

type counting struct {
	w io.Writer
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	if c.n.Load() > 256<<20 {
		return n, errors.New("enough")
	}
	return n, err
}

// upgrade answers a WebSocket handshake by hand.
func upgrade(t *testing.T, w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.ReadWriter) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return conn, rw
}

// The relay cannot fill the log, however it answers, and its texts are cut.
func TestLogIsThinned(t *testing.T) {
	for _, row := range []struct {
		why    string
		answer func(say func(string), id string) (goOn bool)
	}{
		{"it acknowledges one message and cuts the connection", func(say func(string), id string) bool {
			say(`{"ack":"` + id + `"}`)
			return false
		}},
		{"errors without end", func(say func(string), id string) bool {
			for range 200 {
				say(`{"error":"no"}`)
			}
			say(`{"ack":"` + id + `"}`)
			return true
		}},
		{"long errors", func(say func(string), id string) bool {
			say(`{"error":"` + strings.Repeat("x", 60_000) + `"}`)
			say(`{"ack":"` + id + `"}`)
			return true
		}},
		{"every message is malformed", func(say func(string), _ string) bool {
			say(`{"error":"Invalid message format","detail":"` + strings.Repeat("x", 60_000) + `"}`)
			return true
		}},
		{"it takes the permission away and gives it back", func(say func(string), id string) bool {
			say(`{"status":"viewer"}`)
			say(`{"status":"authenticated"}`)
			say(`{"ack":"` + id + `"}`)
			return true
		}},
		{"the token expires without end", func(say func(string), id string) bool {
			for range 10 {
				say(`{"status":"expiring"}`)
				say(`{"status":"authenticated"}`)
			}
			say(`{"ack":"` + id + `"}`)
			return true
		}},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := scripted(t, func(_ int, say func(string), hear func() string) {
					for {
						var m struct{ ID string }
						if text := hear(); text == "" {
							return
						} else if json.Unmarshal([]byte(text), &m) != nil || m.ID == "" {
							continue // a token
						}
						if !row.answer(say, m.ID) {
							return
						}
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				logs := new(testkit.Log)
				asked := 0
				err := publish.Run(ctx, publish.Config{
					URL: "ws://" + origin + "/ws", Client: client, Source: &ticking{numbers{last: 1 << 30}, 400 * time.Millisecond},
					Tokens: publish.TokenFunc(func() (string, error) { asked++; return "t", nil }),
					Logger: slog.New(slog.NewTextHandler(logs, nil)),
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				// Ten of each of a few kinds in a minute, and their remainders.
				if n := strings.Count(logs.String(), "\n"); n > 150 || len(logs.String()) > 75_000 {
					t.Errorf("%d lines with %d bytes in two minutes", n, len(logs.String()))
				}
				if asked > 300 {
					t.Errorf("%d tokens were asked for in two minutes", asked)
				}
			})
		})
	}
}

// The device only publishes: it asks for no history and no live frames. With a
// relay that sends them all the same, it asks for those after the last position
// that it has read.
func TestAsksForNoFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []url.Values
		long := strings.Repeat("p", 100_000)
		client := scripted(t, func(n int, say func(string), hear func() string) {
			switch n {
			case 2:
				say(`{"type":"live","messages":[],"pos":"a+&b="}`)
			case 3:
				say(`{"type":"live","messages":[],"pos":"` + long + `"}`)
			case 4:
				for {
					var m struct{ ID string }
					if json.Unmarshal([]byte(hear()), &m) != nil {
						return
					}
					say(`{"ack":"` + m.ID + `"}`)
				}
			}
			time.Sleep(time.Second)
		})
		inner := client.Transport
		client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.Query())
			return inner.RoundTrip(r)
		})
		if err := publish.Run(day(t), publish.Config{URL: "ws://" + origin + "/ws?room=pi-1", Client: client, Tokens: good, Source: &numbers{last: 3}}); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		for i, since := range []string{"", "", "a+&b=", "a+&b="} {
			if len(asked) <= i || asked[i].Get("room") != "pi-1" || asked[i].Get("watch") != "0" || asked[i].Get("since") != since {
				t.Fatalf("connection %d: asked %v, want room=pi-1, watch=0 and since=%q", i+1, asked, since)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
