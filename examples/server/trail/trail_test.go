package trail_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/wsauth"
)

// The trail bounds the number and the size of its entries, and reports how many
// it has dropped.
func TestTrailIsBounded(t *testing.T) {
	tr := trail.New()
	_, changed := tr.After(0)
	for i := range 2500 {
		tr.Add(trail.Entry{Kind: trail.KindAuth, Addr: fmt.Sprint(i), Detail: strings.Repeat("ä", 5000)})
	}
	select {
	case <-changed:
	default:
		t.Error("the channel is not closed")
	}
	entries, _ := tr.After(2)
	if len(entries) != 1+trail.Length || entries[0].Kind != trail.KindMissed || entries[0].Count != 1498 {
		t.Fatalf("%d entries, first %+v", len(entries), entries[0])
	}
	for i, e := range entries[1:] {
		if e.Seq != uint64(1501+i) || e.Addr != fmt.Sprint(1500+i) || len(e.Detail) > 300 || !strings.HasSuffix(e.Detail, "ä…") {
			t.Fatalf("entry %d is %+v", i, e)
		}
	}
	if entries, _ := tr.After(2500); len(entries) > 0 {
		t.Error("there are entries after the last")
	}
	if entries, last := tr.Newest(3, time.Time{}); len(entries) != 3 || last != 2500 || entries[2].Seq != 2500 {
		t.Errorf("%d entries to %d", len(entries), last)
	}
	tr.Close()
	tr.Close()
	tr.Add(trail.Entry{}) // and no panic
}

// kinds are all kinds of entry that have room of their own.
var kinds = []struct {
	name    string
	kind    trail.Kind
	outcome wsauth.EventKind
}{
	{"auth successes", trail.KindAuth, wsauth.EventAuthenticated},
	{"refused tokens", trail.KindAuth, wsauth.EventRefused},
	{"foreign origins", trail.KindAuth, wsauth.EventOriginRefused},
	{"refused connections", trail.KindRefused, "limit"},
	{"suspicions", trail.KindSuspicious, "churn"},
	{"blocks", trail.KindBlock, "penalty"},
	{"operator calls", trail.KindOperator, "done"},
	{"a kind of a later version", "later", "done"},
}

// Thousands of events of one kind, or of all kinds but one, leave the newest of
// every other kind in the trail, and in the newest that an operator asks for.
func TestTrailHasRoomForEveryKind(t *testing.T) {
	const events, room = 100, 100
	for _, row := range kinds {
		for _, flood := range kinds {
			if flood == row {
				continue
			}
			tr := trail.New()
			for i := range events {
				tr.Add(trail.Entry{Kind: row.kind, Outcome: string(row.outcome), Addr: fmt.Sprint(i)})
			}
			for range 1500 {
				tr.Add(trail.Entry{Kind: flood.kind, Outcome: string(flood.outcome)})
			}
			holds(t, fmt.Sprintf("%s after a flood of %s", row.name, flood.name), tr, row.kind, string(row.outcome), events)
		}
		tr := trail.New()
		for i := range 1500 {
			for _, other := range kinds {
				e := trail.Entry{Kind: other.kind, Outcome: string(other.outcome)}
				if other == row {
					if i >= events {
						continue
					}
					e.Addr = fmt.Sprint(i)
				}
				tr.Add(e)
			}
		}
		holds(t, row.name+" after a flood of all others", tr, row.kind, string(row.outcome), room)
	}
}

// holds requires that the trail has at least the newest n of a hundred events,
// in their order, and is full.
func holds(t *testing.T, name string, tr *trail.Trail, kind trail.Kind, outcome string, n int) {
	t.Helper()
	all, _ := tr.Newest(trail.Length, time.Time{})
	if len(all) != trail.Length || !slices.IsSortedFunc(all, func(a, b trail.Entry) int { return cmp.Compare(a.Seq, b.Seq) }) {
		t.Errorf("%s: %d entries, or not in order", name, len(all))
	}
	var found []string
	for _, e := range all {
		if e.Kind == kind && e.Outcome == outcome && e.Addr != "" {
			found = append(found, e.Addr)
		}
	}
	var want []string
	for i := 100 - n; i < 100; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(found, want) {
		t.Errorf("%s: %d of %d are kept", name, len(found), n)
	}
}

// A follower gets every entry, or is told how many it has missed, wherever they
// were in the order.
func TestFollowerIsToldWhatItMissed(t *testing.T) {
	tr, rng := trail.New(), rand.New(rand.NewPCG(1, 2))
	var seq, added, got uint64
	for range 200 {
		for range rng.IntN(1500) {
			k := kinds[min(rng.IntN(len(kinds)), rng.IntN(len(kinds)))]
			tr.Add(trail.Entry{Kind: k.kind, Outcome: string(k.outcome)})
			added++
		}
		entries, _ := tr.After(seq)
		for i, e := range entries {
			switch {
			case e.Kind == trail.KindMissed && i == 0:
				got += e.Count
			case e.Kind == trail.KindMissed || e.Seq <= seq:
				t.Fatalf("entry %d is %+v after %d", i, e, seq)
			default:
				seq = e.Seq
				got++
			}
		}
		if got != added || seq != added {
			t.Fatalf("the follower has %d, up to %d, of %d", got, seq, added)
		}
	}
}

// No text in an entry is long.
func TestTrailCutsTexts(t *testing.T) {
	tr, long := trail.New(), strings.Repeat("\u00e4", 8000)
	tr.Add(trail.Entry{
		Kind: trail.KindAuth, Outcome: long, Addr: long, Reason: long, Device: long,
		TokenID: long, KeyID: long, SessionID: long, Detail: long,
	})
	entries, _ := tr.After(0)
	if text, err := json.Marshal(entries); err != nil || len(text) > 8*300 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}
