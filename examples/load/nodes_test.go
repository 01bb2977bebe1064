//go:build unix

package main

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
)

// If one of three servers ends, its viewers go on at the next one, and load
// finds nothing lost and nothing twice.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	binary := buildRelay(t)
	for _, row := range []struct {
		why    string
		signal syscall.Signal
		code   string
	}{
		{"killed", syscall.SIGKILL, "1006"},
		{"stopped", syscall.SIGTERM, "1001"},
	} {
		t.Run(row.why, func(t *testing.T) {
			engine := redistest.Start(t)
			env := "REDIS_URL=redis://" + engine.Addr
			args := []string{"-viewers", "30", "-rate", "100", "-for", "1s", "-wait", "1m"}
			var servers []*relay
			for range 3 {
				s := startRelay(t, binary, env)
				servers = append(servers, s)
				args = append(args, "-url", s.url, "-server-pid", strconv.Itoa(s.cmd.Process.Pid))
			}
			for _, s := range servers {
				ready(t, s)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for stored(t, engine) < 20 && t.Context().Err() == nil {
					time.Sleep(time.Millisecond)
				}
				_ = servers[1].cmd.Process.Signal(row.signal)
			}()
			r, code, words := measured(t, append(args, "-token", servers[0].token)...)
			<-ended
			if code != exitOK || r.Published != 100 || r.Expected != 30*100 || r.Deliveries != r.Expected {
				t.Errorf("exit code %d, %s%+v", code, words, r)
			}
			if want := map[string]int{row.code: 10}; !maps.Equal(r.Reconnects, want) || len(r.Dropped) > 0 {
				t.Errorf("reconnects %v, dropped %v, want %v and none", r.Reconnects, r.Dropped, want)
			}
			var first, last []int
			var deliveries int64
			for _, s := range r.Servers {
				first, last, deliveries = append(first, s.Viewers), append(last, s.AtEnd), deliveries+s.Deliveries
				if s.Deliveries == 0 || s.Latency.P50 <= 0 || s.CPU < 0 {
					t.Errorf("of one server: %+v", s)
				}
			}
			// The engine works for each message and server, not for each
			// viewer.
			if reads := calls(engine, "xread"); reads >= 2*3*100 {
				t.Errorf("%d reads of the engine for 100 messages and three servers", reads)
			}
			if !slices.Equal(first, []int{10, 10, 10}) || !slices.Equal(last, []int{10, 0, 20}) || deliveries != r.Deliveries {
				t.Errorf("viewers %v, at the end %v, %d deliveries of %d", first, last, deliveries, r.Deliveries)
			}
		})
	}
}

// ready waits until the server has joined the others.
func ready(t testing.TB, s *relay) {
	t.Helper()
	url := "http" + strings.TrimSuffix(strings.TrimPrefix(s.url, "ws"), "/ws") + "/readyz"
	redistest.Wait(t, "a server that is ready", func() bool {
		res, err := http.Get(url)
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	})
}

// stored returns how many messages the engine has.
func stored(t *testing.T, engine *redistest.Server) int {
	n, err := redistest.Try(engine.Addr, "XLEN", "{relay:history}:log")
	if err != nil {
		t.Error(err)
		return 1 << 30
	}
	count, _ := strconv.Atoi(n)
	return count
}

// calls returns how often the engine has run a command.
func calls(engine *redistest.Server, command string) int {
	_, rest, _ := strings.Cut(engine.Do("INFO", "commandstats"), "cmdstat_"+command+":calls=")
	count, _, _ := strings.Cut(rest, ",")
	n, _ := strconv.Atoi(count)
	return n
}

// A server that is away from the beginning is a failure, and so is a viewer
// that is dropped and has found no other server at the end.
func TestOneServerIsAway(t *testing.T) {
	f, gone := newFake(t), newFake(t)
	gone.Close()
	f.after = serverFrame(0x88, "\x03\xe9")
	r, code, words := measured(t, "-url", f.url(), "-url", gone.url(), "-publish=false", "-start", f.URL+"/start",
		"-viewers", "4", "-rate", "10", "-for", "1s", "-wait", "1m", "-sources", "0")
	if code != exitFailed || r.Refused["nothing listens"] != 2 || r.Dropped["1001"] != 2 || !strings.Contains(words, "2 viewers were refused") {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
	if r.Servers[0].Viewers != 2 || r.Servers[1].Viewers != 0 {
		t.Errorf("viewers: %+v", r.Servers)
	}
}

// A position counts when its frame is whole, and so do the messages of a frame.
func TestPlace(t *testing.T) {
	for _, row := range []struct {
		why   string
		parts []string // of frames; a part that ends with ! is the last of its frame
		pos   string
		count int
	}{
		{"one frame", []string{`{"type":"live","pos":"a","messages":[]}!`}, "a", 1},
		{"in pieces", []string{`{"type":"live","po`, `s":"a`, `b","messages":[`, `]}!`}, "ab", 4},
		{"the next frame is cut", []string{`{"pos":"a"}!`, `{"pos":"b"`}, "a", 1},
		{"no position keeps the one before", []string{`{"pos":"a"}!`, `{"ack":"b"}!`}, "a", 2},
		{"no position at all", []string{`hello!`}, "", 1},
		{"a position without an end", []string{`{"pos":"` + strings.Repeat("a", 300) + `"}!`}, "", 1},
	} {
		var p place
		count := 0
		for i, part := range row.parts {
			text, last := strings.CutSuffix(part, "!")
			p.add([]byte(text))
			p.found(int64(i), 1)
			if last {
				p.end(func(_, _ int64) { count++ })
			}
		}
		if p.pos != row.pos || count != row.count {
			t.Errorf("%s: %q and %d messages, want %q and %d", row.why, p.pos, count, row.pos, row.count)
		}
	}
}

func TestSince(t *testing.T) {
	for _, row := range []struct{ url, pos, want string }{
		{"ws://127.0.0.1/ws", "", "/ws"},
		{"ws://127.0.0.1/ws", "a.1", "/ws?since=a.1"},
		{"ws://127.0.0.1/ws?room=x", "a&b=1", "/ws?room=x&since=a%26b%3D1"},
	} {
		to, err := parseTarget(row.url, "", false)
		if got := to.since(row.pos).path; err != nil || got != row.want {
			t.Errorf("%s from %q: %q, %v, want %q", row.url, row.pos, got, err, row.want)
		}
	}
}

func TestBackOff(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 4: 16 * time.Second, 5: 30 * time.Second, 1000: 30 * time.Second} {
		for range 100 {
			if got := backOff(failures); got < most/2 || got > most {
				t.Errorf("after %d failures: %v, want at most %v, and half of it at least", failures, got, most)
			}
		}
	}
}
