package bench_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// contender is one of several ways to do the same work. run does it n times.
type contender struct {
	name string
	run  func(n int)
}

// compare lets the first contender and each of the others take turns, in rounds
// of n. It logs the other's time divided by the first one's: the median of the
// rounds, and the quartiles. Other load on the machine affects both sides of a
// round alike, or only one of many rounds. Times are not reported, because they
// are those of one machine.
func compare(b *testing.B, n int, first contender, others ...contender) {
	b.Helper()
	ratios := make([][]float64, len(others))
	for round := 0; b.Loop(); round++ {
		for i, other := range others {
			a, z := first, other
			if round%2 == 1 {
				a, z = z, a
			}
			ta, tz := timed(a, n), timed(z, n)
			if round%2 == 1 {
				ta, tz = tz, ta
			}
			ratios[i] = append(ratios[i], float64(tz)/float64(ta))
		}
	}
	b.ReportMetric(0, "ns/op")

	var table strings.Builder
	fmt.Fprintf(&table, "%-28s %6s %16s %10s", "", "time", "quartiles", "allocs/op")
	fmt.Fprintf(&table, "\n%-28s %6.2f %16s %10.0f", first.name, 1.0, "", allocs(first, n))
	for i, other := range others {
		low, median, high := quartiles(ratios[i])
		fmt.Fprintf(&table, "\n%-28s %6.2f %16s %10.0f",
			other.name, median, fmt.Sprintf("%.2f to %.2f", low, high), allocs(other, n))
	}
	b.Log("\n" + table.String())
}

func timed(c contender, n int) time.Duration {
	start := time.Now()
	c.run(n)
	return time.Since(start)
}

func allocs(c contender, n int) float64 {
	return testing.AllocsPerRun(1, func() { c.run(n) }) / float64(n)
}

func quartiles[T cmp.Ordered](s []T) (low, median, high T) {
	slices.Sort(s)
	return s[len(s)/4], s[len(s)/2], s[len(s)*3/4]
}
