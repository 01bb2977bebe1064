package main

import (
	"slices"
	"testing"
)

// Garbage is collected seldom from the first second of a storm until five
// seconds after it, and the runtime is told only when that changes.
func TestCollector(t *testing.T) {
	for _, row := range []struct {
		why      string
		arriving []uint64 // in each second
		want     []int    // the percent that is set, 0 if none is
	}{
		{"quiet", []uint64{0, 1, 49, 0}, []int{0, 0, 0, 0}},
		{"a storm", []uint64{10, 50, 900, 0, 0, 0, 0, 0, 0}, []int{0, seldom, 0, 0, 0, 0, 0, often, 0}},
		{"a storm that comes back", []uint64{70, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0}, []int{seldom, 0, 0, 0, 0, 0, 0, 0, 0, 0, often}},
		{"two storms", []uint64{70, 0, 0, 0, 0, 0, 80, 3}, []int{seldom, 0, 0, 0, 0, often, seldom, 0}},
	} {
		var got []int
		c := collector{set: func(percent int) { got[len(got)-1] = percent }}
		sum := uint64(0)
		for _, n := range row.arriving {
			sum += n
			got = append(got, 0)
			c.look(sum)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.why, got, row.want)
		}
		// It need not wait for the end of the second.
		c.set = func(percent int) { got = append(got, percent) }
		got = nil
		c.storm = false
		if c.arrive(sum + arrival - 1); got != nil {
			t.Errorf("%s: %d connections are many", row.why, arrival-1)
		}
		if c.arrive(sum + arrival); !slices.Equal(got, []int{seldom}) {
			t.Errorf("%s: then %v", row.why, got)
		}
	}
}
