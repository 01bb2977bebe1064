//go:build unix

package main

import "slices"

// track checks that one viewer gets each message of a run once and in order.
type track struct {
	next    int64 // the number after the highest seen
	missing []gap // gaps below next, ascending
	late    bool  // the first message seen counts as the first of the run
	first   int64 // the number of the first message
}

// gap is a range of messages that were not seen: from, and up to but not to.
type gap struct{ from, to int64 }

// verdict is the judgement on one message.
type verdict int

const (
	inOrder verdict = iota
	afterGap
	outOfOrder // it belongs to a gap
	duplicate
)

// see judges the message n, which has arrived.
func (t *track) see(n int64) verdict {
	if t.late {
		t.late, t.first, t.next = false, n, n
	}
	switch {
	case n == t.next:
		t.next++
		return inOrder
	case n > t.next:
		t.missing = append(t.missing, gap{t.next, n})
		t.next = n + 1
		return afterGap
	}
	for i, g := range t.missing {
		if g.from <= n && n < g.to {
			t.missing = slices.Delete(t.missing, i, i+1)
			if n+1 < g.to {
				t.missing = slices.Insert(t.missing, i, gap{n + 1, g.to})
			}
			if g.from < n {
				t.missing = slices.Insert(t.missing, i, gap{g.from, n})
			}
			return outOfOrder
		}
	}
	return duplicate
}

// lost returns how many of the first published messages did not arrive.
func (t *track) lost(published int64) int64 {
	if t.late {
		return published
	}
	lost := max(0, published-t.next)
	for _, g := range t.missing {
		lost += g.to - g.from
	}
	return lost
}

// expected returns how many of the first published messages should arrive.
func (t *track) expected(published int64) int64 { return max(0, published-t.first) }
