package main

//lint:file-ignore SA1019 see harness_test.go

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/config"
)

// scissors forwards connections to addr and cuts each, in both directions,
// after a random number of bytes: between frames, inside a frame or inside the
// handshake. After blunt is closed, it cuts no more connections.
func scissors(t *testing.T, addr string, most int, blunt <-chan struct{}) (through string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				open.Go(func() {
					defer near.Close()
					defer far.Close()
					_, _ = io.CopyN(way[0], way[1], int64(1+rand.IntN(most)))
					select {
					case <-blunt:
						_, _ = io.Copy(way[0], way[1])
					default:
					}
				})
			}
		}
	})
	t.Cleanup(func() {
		ln.Close()
		open.Wait()
	})
	return ln.Addr().String()
}

// counting is a Source of the texts 0, 1, 2 … up to n.
type counting struct{ next, n int }

func (c *counting) Next(ctx context.Context) (wire.Message, error) {
	if c.next == c.n {
		return wire.Message{}, io.EOF
	}
	c.next++
	return wire.Message{Text: strconv.Itoa(c.next - 1)}, nil
}

// watch follows the stream as the page does, and connects again after each cut,
// until it has seen the text last. It returns the texts that it then shows.
func follow(t *testing.T, addr, last string, deadline time.Time) (shown []string) {
	pos := ""
	for time.Now().Before(deadline) {
		frames := func() error {
			p, err := dial("ws://" + addr + "/ws?since=" + pos)
			if err != nil {
				return err
			}
			defer p.CloseNow()
			for {
				ctx, cancel := context.WithDeadline(context.Background(), deadline)
				_, data, err := p.Read(ctx)
				cancel()
				if err != nil {
					return err
				}
				var f struct {
					Type, Pos string
					Messages  []struct{ Text string }
				}
				if err := json.Unmarshal(data, &f); err != nil {
					return err // the client's library takes a frame that was cut for a whole one
				}
				if f.Type != "" && f.Pos == "" {
					t.Errorf("a frame without a position: %q", data)
				}
				if f.Type == string(wire.History) {
					shown = nil
				}
				for _, m := range f.Messages {
					shown = append(shown, m.Text)
				}
				pos = f.Pos
				if len(shown) > 0 && shown[len(shown)-1] == last {
					return nil
				}
			}
		}
		if frames() == nil {
			return shown
		}
	}
	return shown
}

// TestNothingIsLostWhenConnectionsAreCut publishes a thousand messages while
// the connections of the device and of its viewers are cut again and again. At
// the end, each viewer shows exactly the published messages.
func TestNothingIsLostWhenConnectionsAreCut(t *testing.T) {
	t.Parallel()
	const n, viewers = 1000, 4
	s := start(t, func(c *config.Config) {
		c.RateConnections, c.MaxAttempts, c.HistoryTrimAt = 1_000_000, 1_000_000, 1200
		c.PublishRate, c.PublishBurst = 1e6, 1e6
	})
	sent := make(chan struct{})
	// The device waits before it connects again, so its connections live
	// longer.
	toDevice, toViewers := scissors(t, s.addr, 60_000, sent), scissors(t, s.addr, 12_000, sent)
	deadline := time.Now().Add(6 * testkit.Patience)

	var all sync.WaitGroup
	for range viewers {
		all.Go(func() {
			shown := follow(t, toViewers, strconv.Itoa(n-1), deadline)
			if len(shown) != n {
				t.Errorf("a viewer has %d messages, want %d", len(shown), n)
				return
			}
			for i, text := range shown {
				if text != strconv.Itoa(i) {
					t.Errorf("message %d is %q", i, text)
					return
				}
			}
		})
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	err := publish.Run(ctx, publish.Config{
		URL:    "ws://" + toDevice + "/ws",
		Tokens: publish.TokenFunc(func() (string, error) { return newToken(s.cfg, testDevice, time.Hour) }),
		Source: &counting{n: n},
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("the device: %v", err)
	}
	close(sent)
	all.Wait()
	t.Logf("%d connections carried %d messages to %d viewers", len(s.logs.Events("connected")), n, viewers)
}
