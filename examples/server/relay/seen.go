package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

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

// seen knows the newest ids of each device. A device sends a message again if
// its acknowledgement was lost, and seen prevents that the message is published
// twice.
type seen struct {
	// order is locked for reading while a message is published. It is locked
	// for writing while a restart signal clears the log, so that no id is added
	// between the choice of the signal's ids and the clearing.
	order sync.RWMutex

	mu      sync.Mutex
	devices map[string]*ids
}

type ids struct {
	mu    sync.Mutex
	known map[string]struct{}
	ring  [remembered]string
	next  int
}

// once calls publish unless id is known, and reports whether it is. publish
// gets the ids to store next to the message: id and, if clears is set, the ids
// that a restart signal carries. If publish succeeds, id is known. An empty id
// is never known. The calls for one device run one after another, because its
// old connection may still publish a message that its new connection sends
// again.
func (s *seen) once(device, id string, clears bool, publish func(marks) error) (known bool, err error) {
	var m marks
	if clears {
		s.order.Lock()
		defer s.order.Unlock()
		m = s.newest()
	} else {
		s.order.RLock()
		defer s.order.RUnlock()
	}
	d := s.of(device)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.known[id]; ok {
		return true, nil
	}
	if id == "" {
		return false, publish(m)
	}
	if m == nil {
		m = marks{}
	}
	m[device] = append(m[device], id)
	if err := publish(m); err != nil {
		return false, err
	}
	d.add(id)
	return false, nil
}

func (d *ids) add(id string) {
	delete(d.known, d.ring[d.next])
	d.ring[d.next] = id
	d.known[id] = struct{}{}
	d.next = (d.next + 1) % remembered
}

// newest returns the ids that a restart signal carries. The caller holds order
// for writing.
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices == nil {
		s.devices = make(map[string]*ids)
	}
	d := s.devices[device]
	if d == nil {
		d = &ids{known: make(map[string]struct{}, remembered)}
		s.devices[device] = d
	}
	return d
}

// recall reads the ids that log kept from an earlier run of the server.
func (s *seen) recall(ctx context.Context, log *history.Log) error {
	// For a position of another log, Since returns the note and every entry.
	other, err := history.Open(ctx, history.Config{})
	if err != nil {
		return err
	}
	all := log.Since(other.Position())
	for _, data := range append([][]byte{all.Note}, datas(all.Entries)...) {
		_, line, _ := bytes.Cut(data, []byte("\n"))
		var m marks
		if json.Unmarshal(line, &m) != nil {
			continue // no ids were stored next to it
		}
		for device, list := range m {
			d := s.of(device)
			for _, id := range list {
				if _, ok := d.known[id]; !ok {
					d.add(id)
				}
			}
		}
	}
	return nil
}

func datas(entries []history.Entry) [][]byte {
	list := make([][]byte, len(entries))
	for i, e := range entries {
		list[i] = e.Data
	}
	return list
}
