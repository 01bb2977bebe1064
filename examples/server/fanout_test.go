package main

import (
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

// One frame is encoded for all viewers at the same position, no matter how many
// they are.
func TestFramesAreShared(t *testing.T) {
	const viewers, messages = 50, 20
	s := start(t, crowded)
	device := s.publisher()
	var watchers []*peer
	for range viewers {
		watchers = append(watchers, s.viewer())
	}
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == viewers+1 })
	before := s.srv.Relay.Stats()
	for i := range messages {
		device.send(`{"text":"` + strconv.Itoa(i) + `"}`)
		for _, w := range append(watchers, device) { // all have it before the next
			if texts, kinds := w.texts(1); texts[0] != strconv.Itoa(i) || kinds[0] != "live" {
				t.Fatalf("got %q in %q, want %d live", texts, kinds, i)
			}
		}
	}
	testkit.Eventually(t, "every delivery is counted", func() bool {
		return s.srv.Relay.Stats().Delivered-before.Delivered == messages*(viewers+1)
	})
	if got := s.srv.Relay.Stats().Encoded - before.Encoded; got != messages {
		t.Errorf("%d frames were encoded for %d messages and %d viewers, want one a message", got, messages, viewers)
	}
}

// attending counts the goroutines that attend to connections.
func attending() int {
	buf := make([]byte, 4<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "(*Relay).attend(")
}

// A viewer has no goroutine, before and after it gets messages, and also not
// after its permission to publish has ended.
func TestViewersAreParked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("not every system can park connections")
	}
	s := start(t, crowded)
	var watchers []*peer
	for range 50 {
		watchers = append(watchers, s.viewer())
	}
	testkit.Eventually(t, "viewers to be parked", func() bool { return s.srv.Relay.Len() == 50 && attending() == 0 })
	device := s.publisher()
	for i := range 10 {
		device.send(`{"text":"` + strconv.Itoa(i) + `"}`)
		for _, w := range append(watchers, device) {
			w.texts(1)
		}
	}
	if n := attending(); n != 1 {
		t.Errorf("%d goroutines attend to 50 viewers and a publisher", n)
	}
	if _, err := s.srv.Authority.Revoke(t.Context(), "a test", testDevice, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	viewer := func(m map[string]any) bool { return m["status"] == "viewer" }
	device.await(viewer)
	device.send(`{"text":"no longer"}`)
	device.await(viewer)
	testkit.Eventually(t, "the former publisher to be parked", func() bool { return attending() == 0 })
	device.send(`{"token":"` + s.token(testDevice, time.Hour) + `"}`)
	if _, code := device.end(); code != 4401 { // it is revoked
		t.Errorf("closed with %d", code)
	}
	testkit.Eventually(t, "its end", func() bool { return s.srv.Relay.Len() == 50 && attending() == 0 })
}

// fill publishes n messages of some size and returns when a viewer has the last
// one. A slow viewer can miss older messages if the log drops them.
func fill(s *testSite, n int) {
	s.t.Helper()
	device, watcher := s.publisher(), s.viewer()
	var reading sync.WaitGroup
	last := strconv.Itoa(n - 1)
	reading.Go(func() { device.until(last) })
	reading.Go(func() { watcher.until(last) })
	body := strings.Repeat("x", 30_000)
	for i := range n {
		device.send(fmt.Sprintf(`{"text":"%d","prompt":"%s"}`, i, body))
	}
	reading.Wait()
}

// unlimited sets no rate for publishing, and keeps every message of the test.
func unlimited(c *config.Config) {
	crowded(c)
	c.PublishRate, c.PublishBurst = 1e6, 1e6
	c.WriteWait = 10 * time.Minute // a viewer that does not read is slow, not gone
}

// A viewer that falls behind gets the missed messages in few frames, in order.
// No other peer waits for it.
func TestPendingMessagesTravelTogether(t *testing.T) {
	const n = 500
	s := start(t, unlimited)
	slow := upgraded(t, s.addr)
	_ = slow.conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 1 })
	fill(s, n)
	slow.conn.SetDeadline(time.Now().Add(testkit.Patience))

	texts, frames := slow.readTexts(n)
	for i, text := range texts {
		if text != strconv.Itoa(i) {
			t.Fatalf("message %d is %q: lost, doubled or out of order", i, text)
		}
	}
	if frames >= n {
		t.Errorf("%d messages came in %d frames, want fewer", n, frames)
	}
}

// A viewer that falls behind the oldest kept message gets a history frame, and
// then live frames.
func TestFallenBehind(t *testing.T) {
	const n = 600
	s := start(t, func(c *config.Config) { unlimited(c); c.HistoryKeep, c.HistoryTrimAt = 20, 30 })
	slow := upgraded(t, s.addr)
	_ = slow.conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 1 })
	device := s.publisher()
	body := strings.Repeat("x", 30_000)
	for i := range n {
		device.send(fmt.Sprintf(`{"text":"%d","prompt":"%s","id":"%d"}`, i, body, i))
		device.await(func(m map[string]any) bool { return m["ack"] == strconv.Itoa(i) })
	}
	slow.conn.SetDeadline(time.Now().Add(testkit.Patience))
	want, replaced := 0, false
	for want < n {
		kind, texts := slow.readFrame()
		first, _ := strconv.Atoi(texts[0])
		if first != want && (kind != "history" || first < want) {
			t.Fatalf("after message %d comes %d in a %s frame", want-1, first, kind)
		}
		replaced = replaced || kind == "history"
		want = first + len(texts)
	}
	if !replaced {
		t.Error("it never fell behind, so this test showed nothing")
	}
}

// A viewer that reads nothing is dropped at its deadline. No other viewer
// notices it.
func TestStalledViewerIsDropped(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { unlimited(c); c.WriteWait = 3 * time.Second }) // the others must not take as long for a frame
	stalled := upgraded(t, s.addr)
	_ = stalled.conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Len() == 1 })
	fill(s, 600)
	testkit.Eventually(t, "dropped", func() bool {
		for _, e := range s.logs.Events("disconnected") {
			if e["cause"] == "too slow" {
				return true
			}
		}
		return false
	})
	testkit.Eventually(t, "its slot is free", func() bool { return s.srv.Watch.Limiter().Stats().Open == s.srv.Relay.Len() })
}

// A publisher over its rate is read more slowly, and loses nothing.
func TestPublisherIsSlowed(t *testing.T) {
	t.Parallel()
	const n, burst, each = 60, 10, 10 * time.Millisecond
	s := start(t, func(c *config.Config) { c.PublishRate, c.PublishBurst = 100, burst })
	device, watcher := s.publisher(), s.viewer()
	for i := range n {
		device.send(`{"text":"` + strconv.Itoa(i) + `"}`)
	}
	var stamps []float64
	for len(stamps) < n {
		m := watcher.await(func(m map[string]any) bool { return m["type"] != nil })
		for _, e := range m["messages"].([]any) {
			e := e.(map[string]any)
			if e["text"] != strconv.Itoa(len(stamps)) {
				t.Fatalf("message %d is %q", len(stamps), e["text"])
			}
			stamps = append(stamps, e["timestamp"].(float64))
		}
	}
	// A lower bound, which no noise can break: the rate lets no more through.
	if took := time.Duration(stamps[n-1]-stamps[0]) * time.Millisecond; took < (n-burst-5)*each {
		t.Errorf("%d messages at 100 a second were published within %v", n, took)
	}
}
