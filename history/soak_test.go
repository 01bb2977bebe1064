package history_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

var soakAppends = flag.Int("soak.appends", 100_000, "how many entries TestSoak appends; a million takes ten seconds or so under -race")

// soak is the state that the goroutines of TestSoak share.
type soak struct {
	t       *testing.T
	log     *history.Log
	mu      sync.Mutex
	deleted map[uint64]bool   // set before Delete is called
	data    map[uint64]string // the content that readers got with each number
}

// TestSoak runs many writers, many kinds of readers and a goroutine that clears
// and deletes on one log. Every reader checks every batch for a gap that is not
// reported, for a duplicate, and for content that differs from that of another
// reader. All readers must reach the end.
func TestSoak(t *testing.T) {
	appends := *soakAppends
	if testing.Short() {
		appends = min(appends, 10_000)
	}
	const writers = 4
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s := &soak{
		t:       t,
		log:     open(t, history.Config{Keep: 100, TrimAt: 120, Wake: 200 * time.Microsecond}),
		deleted: make(map[uint64]bool),
		data:    make(map[uint64]string),
	}
	var reading, writing sync.WaitGroup
	for i := range 24 {
		reading.Go(func() { s.read(ctx, i) })
	}
	for w := range writers {
		writing.Go(func() {
			for i := range appends / writers {
				if _, err := s.log.Append(ctx, fmt.Appendf(nil, "%d:%d", w, i)); err != nil {
					t.Error(err)
					return
				}
				if i%32 == 0 { // let other writers append in between
					s.pause(ctx, 100*time.Microsecond)
				}
			}
		})
	}
	changes := make(chan struct{})
	go func() { defer close(changes); s.change(ctx, uint64(appends)) }()
	writing.Wait()
	<-changes
	last, _ := s.log.Append(ctx, []byte("end"))
	reading.Wait()
	if st := s.log.Stats(); st.Appended != uint64(appends/writers*writers)+1 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	} else {
		t.Logf("%d appends, %d cleared or deleted, %d seen, up to %d: %+v", appends, st.Replaced+st.Deleted, len(s.data), last.Seq(), st)
	}
}

// pause returns when there is a new entry, or after d.
func (s *soak) pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	s.log.Reader(history.Latest()).Next(ctx)
}

// change sometimes clears or deletes, until nine tenths of the entries are
// appended.
func (s *soak) change(ctx context.Context, until uint64) {
	rng := rand.New(rand.NewPCG(3, 4))
	for ctx.Err() == nil {
		pos, err := s.log.Reader(history.Latest()).Next(ctx)
		if err != nil || pos.To.Seq() > until*9/10 {
			return
		}
		switch rng.IntN(20) {
		case 0:
			s.log.Clear(ctx, []byte("clear"))
		case 1:
			s.log.Replace(ctx, []byte("replace"), []byte("r:1"), []byte("r:2"))
		case 2, 3, 4:
			victim := pos.To.Seq() - min(rng.Uint64N(110), pos.To.Seq())
			s.mu.Lock()
			s.deleted[victim] = true
			s.mu.Unlock()
			s.log.Delete(ctx, victim)
		}
	}
}

// read follows the log to its end. kind decides how: a reader waits, gives up
// waiting, or begins again with a token, and it may be slow.
func (s *soak) read(ctx context.Context, kind int) {
	rng := rand.New(rand.NewPCG(uint64(kind), 5))
	r := s.log.Reader(history.Oldest())
	at := r.Position()
	for {
		var b history.Batch
		var err error
		switch kind % 4 {
		case 0, 1:
			b, err = r.Next(ctx)
		case 2:
			short, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(300))*time.Microsecond)
			b, err = r.Next(short)
			cancel()
			if err != nil && ctx.Err() == nil {
				continue
			}
		case 3:
			pos, perr := history.ParsePosition(r.Position().String())
			r = s.log.Reader(pos)
			if b, err = r.Next(ctx); perr != nil {
				err = perr
			}
		}
		if err != nil {
			s.t.Errorf("reader %d, at %d: %v", kind, at.Seq(), err)
			return
		}
		if b.From != at || b.To != r.Position() || b.Empty() {
			s.t.Errorf("reader %d: from %v to %v, was at %v, is at %v", kind, b.From, b.To, at, r.Position())
			return
		}
		s.check(kind, b)
		at = b.To
		if n := len(b.Entries); n > 0 && string(b.Entries[n-1].Data) == "end" {
			return
		}
		if kind%2 == 1 { // slow: wait for some appends, or a few milliseconds
			for rng.IntN(4) > 0 {
				s.pause(ctx, time.Millisecond)
			}
		}
	}
}

// check fails the test if a sequence number between From and To of b is neither
// in b nor reported.
func (s *soak) check(kind int, b history.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := b.From.Seq() + b.Missed
	switch {
	case b.Reset && b.Missed != 0:
		s.t.Errorf("reader %d: %d missed on a reset", kind, b.Missed)
	case b.Reset && len(b.Entries) > 0:
		seq = b.Entries[0].Seq - 1
	case b.Reset:
		seq = b.To.Seq()
	case b.Missed > 0 && len(b.Entries) < 100:
		s.t.Errorf("reader %d: %d missed, while only %d are kept", kind, b.Missed, len(b.Entries))
	}
	for _, e := range b.Entries {
		for seq++; seq < e.Seq; seq++ {
			if !s.deleted[seq] {
				s.t.Errorf("reader %d: %d is missing and not reported", kind, seq)
			}
		}
		if seq != e.Seq {
			s.t.Errorf("reader %d: %d after %d", kind, e.Seq, seq)
			seq = e.Seq
		}
		if was, ok := s.data[e.Seq]; ok && was != string(e.Data) {
			s.t.Errorf("reader %d: %d is %q, another reader got %q", kind, e.Seq, e.Data, was)
		}
		s.data[e.Seq] = string(e.Data)
	}
	for seq++; seq <= b.To.Seq(); seq++ {
		if !s.deleted[seq] {
			s.t.Errorf("reader %d: %d is missing at the end of a batch", kind, seq)
		}
	}
}
