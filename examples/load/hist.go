//go:build unix

package main

import (
	"math/bits"
	"time"
)

// subBits divides each power of two into 64 buckets, so a quantile is at most
// 1.6 % too high.
const subBits = 6

// histogram counts durations in buckets. The longer the durations, the wider is
// their bucket. The zero value is empty.
type histogram struct {
	counts [(64 - subBits) << subBits]uint64
	n      uint64
	max    time.Duration
}

// bucket returns the index of the bucket for v. Values below 64 have a bucket
// each. Larger values share one if their leading bits are the same.
func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// upper returns the largest value of bucket i.
func upper(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}

// add counts d. A negative d, of a clock that was set back, counts as 0.
func (h *histogram) add(d time.Duration) {
	d = max(0, d)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// merge adds the counts of o.
func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all durations do not exceed.
// If h is empty, it returns 0.
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
