//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
)

// swap exchanges the message first and the next one.
func swap(first int) func(int, []byte) [][]byte {
	var kept []byte
	return func(n int, frame []byte) [][]byte {
		switch n {
		case first:
			kept = frame
			return nil
		case first + 1:
			return [][]byte{frame, kept}
		}
		return [][]byte{frame}
	}
}

// Load finds every mistake of a server, counts it exactly and reports it. It
// does not report what a server may do.
func TestFaults(t *testing.T) {
	replace := func(at int, with ...string) func(int, []byte) [][]byte {
		return func(n int, frame []byte) [][]byte {
			if n != at {
				return [][]byte{frame}
			}
			var frames [][]byte
			for range with {
				frames = append(frames, frame)
			}
			return frames
		}
	}
	var merged []byte
	for _, row := range []struct {
		why    string
		alter  func(n int, frame []byte) [][]byte
		after  []byte
		counts [5]int64 // loss, duplicates, out of order, malformed, dropped
		words  string
	}{
		{why: "nothing"},
		{why: "one message is lost", alter: replace(3), counts: [5]int64{4, 0, 0, 0, 0}, words: "4 deliveries were lost"},
		// The viewers are dropped too, or load would wait for the message.
		{why: "the last message is lost", alter: replace(9), after: serverFrame(0x88, "\x03\xe9"), counts: [5]int64{4, 0, 0, 0, 4}, words: "4 deliveries were lost"},
		{why: "one message comes twice", alter: replace(3, "", ""), counts: [5]int64{0, 4, 0, 0, 0}, words: "4 deliveries came twice"},
		{why: "two change places", alter: swap(3), counts: [5]int64{0, 0, 4, 0, 0}, words: "4 deliveries came out of order"},
		{why: "one is damaged", alter: func(n int, frame []byte) [][]byte {
			if n == 3 {
				frame = bytes.Replace(frame, []byte(" t="), []byte(" T="), 1)
			}
			return [][]byte{frame}
		}, counts: [5]int64{4, 0, 0, 4, 0}, words: "4 messages of this run arrived damaged"},
		{why: "two are merged in one frame", alter: func(n int, frame []byte) [][]byte {
			if text := frame[4:]; n == 3 { // 200 bytes after a header of four
				merged = append(bytes.Clone(text), ',')
				return nil
			} else if n == 4 {
				return [][]byte{serverFrame(0x81, string(append(merged, text...)))}
			}
			return [][]byte{frame}
		}},
		{why: "all are dropped", after: serverFrame(0x88, "\x03\xe9"), counts: [5]int64{0, 0, 0, 0, 4}, words: "4 viewers were dropped (1001)"},
		{why: "the protocol is broken", after: serverFrame(0x83, ""), counts: [5]int64{0, 0, 0, 0, 4}, words: "broke the WebSocket protocol"},
		{why: "messages of other runs", alter: func(n int, frame []byte) [][]byte {
			return [][]byte{serverFrame(0x81, "run=other n=000000003 t=1 "), frame}
		}},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.alter, f.after = row.alter, row.after
			r, code, words := measured(t, "-url", f.url(), "-publish=false", "-start", f.URL+"/start",
				"-viewers", "4", "-rate", "10", "-for", "1s", "-wait", "1m")
			dropped := 0
			for _, n := range r.Dropped {
				dropped += n
			}
			if got := [5]int64{r.Loss, r.Duplicates, r.OutOfOrder, r.Malformed, int64(dropped)}; got != row.counts {
				t.Errorf("loss, duplicates, disorder, malformed, dropped: %v, want %v", got, row.counts)
			}
			if r.Expected != 40 || r.Published != 10 || r.Connected != 4 {
				t.Errorf("%d expected, %d published, %d connected", r.Expected, r.Published, r.Connected)
			}
			if wrong := row.counts != [5]int64{}; (code == exitFailed) != wrong || !strings.Contains(words, row.words) {
				t.Errorf("exit code %d, %q", code, words)
			}
		})
	}
}

// Load publishes by itself, over the relay's protocol.
func TestPublishes(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	r, code, words := measured(t, "-url", f.url(), "-viewers", "8", "-rate", "50", "-for", "200ms", "-slow", "2", "-hello", "hello", "-sources", "0", "-wait", "1m")
	if code != exitOK || r.Published != 10 || r.Expected != 60 || r.Deliveries != 60 || r.Loss != 0 || r.Slow != 2 {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
	if r.Latency.Max <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max || r.Throughput <= 0 {
		t.Errorf("latency %v, throughput %v", r.Latency, r.Throughput)
	}
}

// Load can join a server in the middle of its messages, and leave it before the
// last.
func TestPublishedElsewhere(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			f.mu.Lock()
			f.broadcast(n, serverFrame(0x81, string(mark.Append(nil, "radio", int64(n), time.Now(), 100))))
			f.mu.Unlock()
		}
	}()
	r, code, words := measured(t, "-url", f.url(), "-publish=false", "-run", "radio", "-viewers", "4", "-for", "1s", "-wait", "1m")
	if code != exitOK || r.Expected == 0 || r.Deliveries != r.Expected {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
}

func TestInterrupted(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.alter = func(_ int, frame []byte) [][]byte {
		cancel()
		return [][]byte{frame}
	}
	var out, errs bytes.Buffer
	code := run(ctx, []string{"-url", f.url(), "-viewers", "2", "-for", "1h"}, "a token", &out, &errs)
	for _, want := range []string{"2, 2 connected", "FAILED                 interrupted", "loss "} {
		if code != exitFailed || !strings.Contains(out.String(), want) {
			t.Errorf("exit code %d, no %q in:\n%s%s", code, want, &out, &errs)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, row := range []struct {
		why   string
		args  []string
		setup func(*fake)
		words string
	}{
		{"the token", nil, func(f *fake) { f.answer = `{"error":"Authentication failed"}` }, "JWT_SECRET"},
		{"the publisher", nil, func(f *fake) { f.refuse = 403 }, "the publisher cannot connect"},
		{"some viewers", []string{"-viewers", "5"}, func(f *fake) { f.refuse, f.admit = 429, 4 }, "2 viewers were refused (429): the server's limit"},
		{"the request to -start", []string{"-publish=false", "-start", "http://127.0.0.1:1/"}, func(*fake) {}, "-start: "},
	} {
		f := newFake(t)
		row.setup(f)
		_, code, words := measured(t, append([]string{"-url", f.url(), "-viewers", "2", "-for", "100ms"}, row.args...)...)
		if code != exitFailed || !strings.Contains(words, row.words) {
			t.Errorf("%s: exit code %d, %q", row.why, code, words)
		}
	}
}

func TestUsage(t *testing.T) {
	for args, words := range map[string]string{
		"-url http://x/":                       "-url must be like",
		"-url ws://192.0.2.1/ws":               "not this machine",
		"-viewers 0":                           "-viewers",
		"-viewers 100000000":                   "ulimit -n",
		"-rate 0":                              "-rate",
		"-rate NaN":                            "-rate",
		"-ramp -1":                             "-ramp",
		"-size 100000":                         "-size",
		"-for 0s":                              "-for",
		"-slow 101%":                           "-slow",
		"-slow x":                              "-slow",
		"-slow 100%":                           "no viewer that reads",
		"-slow-kind fast":                      "stall or drip",
		"-storm -idle":                         "exclude",
		"-idle -restart -server-pid 1":         "exclude",
		"-restart":                             "needs -server-pid, and one",
		"-restart -server-pid 1 -slow 1":       "exclude",
		"-publish=false":                       "-run",
		"-start http://x/":                     "-publish=false",
		"-run A":                               "small letters",
		"-sources -2":                          "-sources",
		"-no-such-flag":                        "usage",
		"viewers":                              "unexpected",
		"-server-pid 0":                        "a number above 0",
		"-server-pid 1 -server-pid 2":          "one for each",
		"-url ws://127.0.0.1/ -url x":          "-url must be like",
		"-viewers 0 -rate 0 -url ws://8.8.8.8": "-rate must be above",
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(args), "a token", &out, &errs)
		if code != exitUsage || !strings.Contains(strings.ToLower(errs.String()), strings.ToLower(words)) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, %q", args, code, &errs)
		}
		if strings.Contains(errs.String(), "a token") {
			t.Errorf("%s: the token is shown: %q", args, &errs)
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-viewers", "1"}, "", &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "LOAD_TOKEN") {
		t.Errorf("without a token: %d, %q", code, &errs)
	}
}

func TestShare(t *testing.T) {
	for _, row := range []struct {
		in   string
		want int
	}{{"0", 0}, {"7", 7}, {"1%", 10}, {"0.01%", 1}, {"100%", 1000}, {"0%", 0}} {
		if n, err := share(row.in, 1000); n != row.want || err != nil {
			t.Errorf("%s: %d, %v", row.in, n, err)
		}
	}
}

func TestSource(t *testing.T) {
	for i, want := range map[int]string{0: "127.0.1.1", 254: "127.0.1.255", 255: "127.0.2.0", 999: "127.0.4.232", 1000: "127.0.1.1"} {
		if got, _, _ := strings.Cut(fmt.Sprint(source(i, 1000)), ":"); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	if source(1, 0) != nil {
		t.Error("an address with -sources 0")
	}
}

// The publisher answers pings however long ago it has written.
func TestPublisherAnswersLate(t *testing.T) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	if err := ours.SetWriteDeadline(time.Unix(1, 0)); err != nil { // of the last message
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		n, _ := theirs.Read(make([]byte, 100))
		answered <- n
	}()
	p := &publisher{conn: &dialled{Conn: ours}}
	if err := p.control(opPing, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n := <-answered; n != 2+4+1 { // masked, with one byte
		t.Errorf("%d bytes", n)
	}
}
