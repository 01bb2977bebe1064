//go:build unix

package main

import "slices"

// track checks that the messages of a run come to one viewer once each and in order.
type track struct {
	next    int64 // the number that follows the highest seen
	missing []gap // below next, ascending
	late    bool  // begins where the first message is, instead of at 0
	first   int64 // where it began
}

// gap is the messages from from until before to.
type gap struct{ from, to int64 }

// verdict is what track says of one message.
type verdict int

const (
	inOrder verdict = iota
	afterGap
	outOfOrder // it fills a gap
	duplicate
)

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

// lost is how many of the first published messages did not come.
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

// expected is how many of the first published messages should have come.
func (t *track) expected(published int64) int64 { return max(0, published-t.first) }
