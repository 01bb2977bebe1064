//go:build unix

package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for _, row := range []struct {
		why      string
		values   []time.Duration
		p50, max time.Duration
	}{
		{"nothing", nil, 0, 0},
		{"one", []time.Duration{7}, 7, 7},
		{"small values are exact", []time.Duration{1, 2, 3, 4, 100}, 3, 100},
		{"a clock that went back", []time.Duration{-5}, 0, 0},
		{"the largest duration", []time.Duration{math.MaxInt64}, math.MaxInt64, math.MaxInt64},
	} {
		var h histogram
		for _, v := range row.values {
			h.add(v)
		}
		if p50 := h.quantile(0.5); p50 != row.p50 || h.max != row.max {
			t.Errorf("%s: p50 %d and max %d, want %d and %d", row.why, p50, h.max, row.p50, row.max)
		}
	}
}

func TestBuckets(t *testing.T) {
	// Every bucket ends where the next begins, up to the largest duration.
	for i := 0; upper(i) < math.MaxInt64; i++ {
		if bucket(upper(i)) != i || bucket(upper(i)+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in %d, and is followed by %d", i, upper(i), bucket(upper(i)), bucket(upper(i)+1))
		}
	}
}

// A quantile is the value at its rank in the sorted list, or up to 1/64 more.
// It does not depend on how the values are split and merged.
func TestQuantilesHold(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		values := make([]time.Duration, 1+r.IntN(2000))
		var parts [3]histogram
		for i := range values {
			values[i] = time.Duration(math.Exp(r.Float64() * 40))
			parts[r.IntN(len(parts))].add(values[i])
		}
		var h histogram
		for i := range parts {
			h.merge(&parts[i])
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			want := values[min(int(q*float64(len(values))), len(values)-1)]
			if got := h.quantile(q); got < want || got > want+want/64+1 {
				t.Fatalf("%v of %d values is %d, want %d", q, len(values), got, want)
			}
		}
		if h.max != values[len(values)-1] {
			t.Fatalf("max %d, want %d", h.max, values[len(values)-1])
		}
	}
}
