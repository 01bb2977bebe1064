//go:build unix

package main

import (
	"math/bits"
	"time"
)

// subBits makes 64 buckets of each power of two, so a quantile is at most 1.6 % too high.
const subBits = 6

// histogram counts durations in buckets whose width grows with the duration. The zero value is empty.
type histogram struct {
	counts [(64 - subBits) << subBits]uint64
	n      uint64
	max    time.Duration
}

// bucket maps v to an index: exact below 64 ns, then the leading bits.
func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// upper is the largest value of a bucket.
func upper(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}

// add counts d; a clock that went backwards counts as no time at all.
func (h *histogram) add(d time.Duration) {
	d = max(0, d)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all do not exceed, 0 where there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n))+1, h.n)
	for i, c := range h.counts {
		if c >= rank {
			return min(time.Duration(upper(i)), h.max)
		}
		rank -= c
	}
	return h.max
}
