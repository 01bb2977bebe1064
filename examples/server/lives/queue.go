package lives

import (
	"context"
	"errors"
	"time"
)

// queued is a life that waits for the disk.
type queued struct {
	Recording
	erased uint64 // calls of EraseAll when it ended
}

// errErased means that all lives were erased while this one waited.
var errErased = errors.New("lives: all lives were erased meanwhile")

// The bounds on what waits for the disk, in memory: so many lives, and so many
// bytes of messages, or one life that is larger. All rooms may end a life at
// the same time.
const (
	waiting      = 1000
	waitingBytes = 64 << 20
)

// Keep keeps a life soon: [Store.Run] writes it. Keep does not block. If too
// many lives wait for the disk, this one is lost, and counted as failed.
func (s *Store) Keep(r Recording) {
	all := s.queued.Add(r.Bytes)
	if all <= waitingBytes || all == r.Bytes {
		select {
		case s.queue <- queued{r, s.generation()}:
			return
		default:
		}
	}
	s.queued.Add(-r.Bytes)
	s.lost(errors.New("too many lives wait for the disk"))
}

// lost counts and logs a life that is not kept.
func (s *Store) lost(err error) {
	s.failed.Add(1)
	s.cfg.Log.Error("a life that has ended is not kept", "error", err)
}

// lastWait is how long [Store.Run] goes on writing at its end.
const lastWait = 1500 * time.Millisecond

// look is the longest time between two looks for lives that are too old.
const look = time.Hour

// Run writes the lives that [Store.Keep] has got, and removes those that are
// too old, until ctx ends. Then it writes what still waits, for 1.5 seconds at
// most, and returns. What is left then is lost.
func (s *Store) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case r := <-s.queue:
			s.keep(r)
		case <-timer.C:
		case <-ctx.Done():
			s.finish(time.Now().Add(lastWait))
			return
		}
		timer.Reset(s.Expire(time.Now()))
	}
}

// finish writes what waits, until a time.
func (s *Store) finish(until time.Time) {
	for {
		select {
		case q := <-s.queue:
			if time.Now().Before(until) {
				s.keep(q)
				continue
			}
			s.queued.Add(-q.Bytes)
			s.lost(errors.New("the server stops, and the disk is slow"))
		default:
			return
		}
	}
}

func (s *Store) keep(q queued) {
	defer s.queued.Add(-q.Bytes)
	life, err := s.add(q)
	if errors.Is(err, errErased) {
		return
	}
	if err != nil {
		s.lost(err)
		return
	}
	s.cfg.Log.Info("a life that has ended is kept", "life", life.ID, "messages", life.Messages, "truncated", life.Truncated)
}
