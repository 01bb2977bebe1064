package relay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// Each second gets as many viewers as asked for, from the first to the last.
func TestGoodbyes(t *testing.T) {
	for _, row := range []struct {
		why       string
		viewers   int
		all       int // if others leave, too
		perSecond float64
		last      int // second
		most      int // viewers in one second
	}{
		{"one", 1, 0, 500, 2, 1},
		{"fewer than come in a second", 400, 0, 500, 2, 400},
		{"10,000 as by default", 10_000, 0, 500, 21, 501},
		{"slowly", 100, 0, 2, 51, 3},
		{"slower than one a second", 10, 0, 0.1, 101, 1},
		{"more than fit: evenly", 298_000, 0, 500, 300, 1001},
		{"a tenth of those that leave", 1000, 10_000, 500, 21, 52},
		{"one of them", 1, 10_000, 500, 21, 1},
		{"many more", 1_000_000, 0, 1, 300, 3357},
	} {
		g := newGoodbyes(row.viewers, max(row.all, row.viewers), row.perSecond)
		in := map[int]int{}
		last := 0
		for range row.viewers {
			wait, ok := client.ComeBack(g.viewer(), time.Hour)
			if !ok {
				t.Fatalf("%s: a client would not understand it", row.why)
			}
			at := int(wait.Seconds())
			in[at]++
			last = max(last, at)
			if at < 2 || at > 300 {
				t.Fatalf("%s: %d seconds", row.why, at)
			}
		}
		// The last one is in the last step, anywhere in it.
		step := float64(max(row.all, row.viewers)) / row.perSecond / float64(row.viewers)
		if first := row.last - 1 - int(step); last < first || last > row.last {
			t.Errorf("%s: the last comes after %d s, want %d", row.why, last, row.last)
		}
		for at, n := range in {
			if n > row.most {
				t.Errorf("%s: %d in second %d, want at most %d", row.why, n, at, row.most)
			}
		}
	}
}

// More viewers than were counted do not come later than the bound.
func TestGoodbyesBeyond(t *testing.T) {
	g := newGoodbyes(0, 0, 1)
	var said []string
	for range 1000 {
		said = append(said, g.viewer())
	}
	if last := said[len(said)-1]; last != "retry=300" {
		t.Error(last)
	}
	if g.publisher() != "retry=1" || slices.ContainsFunc(said, func(s string) bool { return !strings.HasPrefix(s, "retry=") }) {
		t.Error(g.publisher(), said)
	}
}
