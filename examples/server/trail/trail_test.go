package trail_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/trail"
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
