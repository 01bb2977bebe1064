package relay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// remembered is the number of ids that the relay recognizes for each device.
const remembered = 1000

// A restart signal carries ids of the messages that it clears: for each device
// as many as can wait for their acknowledgement, and in all so few bytes that
// the smallest limit of a history is far larger.
const (
	carried      = 256
	carriedBytes = 64 << 10
)

// marks are the ids that a stored message makes known, by device, oldest first.
// In the log they follow the message after a line end, because a message itself
// never contains one. So a restarted server recognizes the ids that the log
// still keeps.
type marks map[string][]string

// stored returns message in the form that the log keeps, with m after it.
func stored(message []byte, m marks) []byte {
	if len(m) == 0 {
		return message
	}
	b, _ := json.Marshal(m) // strings: cannot fail
	return append(append(message, '\n'), b...)
}

// Shown returns the part of an entry's data that viewers get. data is an entry
// of the relay's log.
func Shown(data []byte) []byte {
	message, _, _ := bytes.Cut(data, []byte("\n"))
	return message
}

// seen knows the newest ids of each device, as far as it has read the log. A
// device sends a message again if its acknowledgement was lost, and seen
// prevents that the message is published twice, also by another server that
// shares the log.
type seen struct {
	log *history.Log

	mu      sync.Mutex
	pos     history.Position // up to here, the ids in the log are known
	devices map[string]*ids
}

// newSeen returns a seen that knows the ids in log.
func newSeen(ctx context.Context, log *history.Log) (*seen, error) {
	other, err := history.Open(ctx, history.Config{})
	if err != nil {
		return nil, err
	}
	// For a position of another log, Next returns the note and every entry.
	all, err := log.Reader(other.Position()).Next(ctx)
	if err != nil {
		return nil, err
	}
	s := &seen{log: log, devices: make(map[string]*ids)}
	s.take(all)
	return s, nil
}

type ids struct {
	known map[string]struct{}
	ring  [remembered]string
	next  int
}

// once calls publish unless id is known, and reports whether it is. to is the
// position after the message, or a later one if the id was known. publish
// gets the ids to store next to the message: id and, if clears is set, the ids
// that a restart signal carries. It must store the message only at the position
// that it gets, and else return [history.ErrMoved]; then there is more to read,
// which may hold id. If publish succeeds, id is known. An empty id is never
// known.
func (s *seen) once(ctx context.Context, device, id string, clears bool, publish func(history.Position, marks) (history.Position, error)) (to history.Position, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.take(s.log.Since(s.pos))
		d := s.of(device)
		if _, ok := d.known[id]; ok {
			return s.pos, true, nil
		}
		m := marks{}
		if clears {
			m = s.newest()
		}
		if id != "" {
			m[device] = append(m[device], id)
		}
		at := s.pos
		pos, err := publish(at, m)
		switch {
		case err == nil:
			s.pos = pos
			d.add(id)
			return pos, false, nil
		case !errors.Is(err, history.ErrMoved):
			return pos, false, err
		}
		if err := s.wait(ctx, at); err != nil {
			return at, false, err
		}
	}
}

// wait waits for what follows a position, which this process need not have yet.
func (s *seen) wait(ctx context.Context, at history.Position) error {
	some, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := s.log.Reader(at).Next(some)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return cmp.Or(ctx.Err(), err)
}

// take makes the ids in b known. The caller holds mu.
func (s *seen) take(b history.Batch) {
	for _, data := range append([][]byte{b.Note}, datas(b.Entries)...) {
		_, line, _ := bytes.Cut(data, []byte("\n"))
		var m marks
		if json.Unmarshal(line, &m) != nil {
			continue // no ids were stored next to it
		}
		for device, list := range m {
			d := s.of(device)
			for _, id := range list {
				d.add(id)
			}
		}
	}
	s.pos = b.To
}

func (d *ids) add(id string) {
	if _, ok := d.known[id]; ok || id == "" {
		return
	}
	delete(d.known, d.ring[d.next])
	d.ring[d.next] = id
	d.known[id] = struct{}{}
	d.next = (d.next + 1) % remembered
}

// newest returns the ids that a restart signal carries. The caller holds mu.
func (s *seen) newest() marks {
	m, size := marks{}, 0
	for device, d := range s.devices {
		var list []string // newest first
		for i := 1; i <= carried; i++ {
			id := d.ring[(d.next+remembered-i)%remembered]
			if size += len(id); id == "" || size > carriedBytes {
				break
			}
			list = append(list, id)
		}
		slices.Reverse(list)
		m[device] = list
	}
	return m
}

func (s *seen) of(device string) *ids {
	d := s.devices[device]
	if d == nil {
		d = &ids{known: make(map[string]struct{}, remembered)}
		s.devices[device] = d
	}
	return d
}

func datas(entries []history.Entry) [][]byte {
	list := make([][]byte, len(entries))
	for i, e := range entries {
		list[i] = e.Data
	}
	return list
}
