package thinlog_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"

	"github.com/relayguard/relayguard/examples/internal/thinlog"
)

func logger(b *testkit.Log) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// A burst is told in ten lines and one at its end, which has the count and the
// attributes of the last one.
func TestThins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testkit.Log
		log, flush := thinlog.New(logger(&b))
		sub := log.With("relay", "r")
		for i := range 1000 {
			sub.Warn("lost", "n", i)
		}
		log.Info("fine")
		if n := strings.Count(b.String(), "msg=lost"); n != 10 {
			t.Errorf("%d lines, want 10", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := "level=WARN msg=lost relay=r n=999 suppressed=990\n"; !strings.HasSuffix(b.String(), "msg=fine\n"+want) {
			t.Errorf("got\n%s\nwant at its end\n%s", b.String(), want)
		}
		before := len(b.String())
		log.Warn("lost", "n", 0)
		if rest := b.String()[before:]; rest != "level=WARN msg=lost n=0\n" {
			t.Errorf("after the burst: %q", rest)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if rest := b.String()[before:]; strings.Contains(rest, "suppressed") {
			t.Errorf("a count of nothing: %q", rest)
		}
		flush()
	})
}

// The count of what was left out stands beside an address only if all of it is
// of that address.
func TestCountsBelongToTheirAddress(t *testing.T) {
	for _, row := range []struct{ why, last, want string }{
		{"all of one", "192.0.2.1", "addr=192.0.2.1 suppressed=40"},
		{"the last of another", "192.0.2.2", "suppressed=40"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var b testkit.Log
			log, flush := thinlog.New(logger(&b))
			for range 49 {
				log.Warn("lost", "addr", netip.MustParseAddr("192.0.2.1"))
			}
			log.Warn("lost", "addr", netip.MustParseAddr(row.last))
			flush()
			if !strings.HasSuffix(b.String(), "level=WARN msg=lost "+row.want+"\n") {
				t.Errorf("%s: %s", row.why, b.String())
			}
		})
	}
}

// The end of the program tells what is left, once.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testkit.Log
		log, flush := thinlog.New(logger(&b))
		for range 12 {
			log.Error("x")
		}
		flush()
		flush()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := strings.Count(b.String(), "suppressed=2"); n != 1 || strings.Count(b.String(), "\n") != 11 {
			t.Errorf("%s", b.String())
		}
	})
}

// Neither many messages nor long texts cost much.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testkit.Log
		log, flush := thinlog.New(logger(&b))
		long := strings.Repeat("x", 1<<16)
		for i := range 2000 {
			log.Warn(strconv.Itoa(i) + long)
		}
		if n := strings.Count(b.String(), "\n"); n > 300 || len(b.String()) > 300*1024 {
			t.Errorf("%d lines with %d bytes", n, len(b.String()))
		}
		before := len(b.String())
		log.Warn("known", "text", long, "error", errors.New(long))
		if n := len(b.String()) - before; n > 2048 {
			t.Errorf("a line of %d bytes", n)
		}
		flush()
		before = len(b.String())
		log.Error("panic", "stack", long)
		if n := len(b.String()) - before; n < len(long) {
			t.Errorf("a stack is cut to %d bytes", n)
		}
		flush()
	})
}

// Many goroutines may log.
func TestConcurrent(t *testing.T) {
	log, flush := thinlog.New(slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 100 {
				log.Info(strconv.Itoa(i % 3))
			}
			flush()
		})
	}
	all.Wait()
}
