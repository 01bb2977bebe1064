package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/relayguard/relayguard/history"
)

// remembered is how many of a device's ids are known again.
const remembered = 1000

// Of what a restart signal clears, it carries the ids itself: as many of each
// device as may wait for their acknowledgement, and as many bytes as are
// nothing beside the least that a history may be limited to.
const (
	carried      = 256
	carriedBytes = 64 << 10
)

// marks are the ids that a stored message makes known, by device, oldest first.
// They follow the message in the log, after a line end, which a message itself
// never holds. So a restart of the server knows again what the log still keeps.
type marks map[string][]string

// stored is a message as the log keeps it.
func stored(message []byte, m marks) []byte {
	if len(m) == 0 {
		return message
	}
	b, _ := json.Marshal(m) // strings: cannot fail
	return append(append(message, '\n'), b...)
}

// Shown returns what viewers see of the data that the relay's log keeps.
func Shown(data []byte) []byte {
	message, _, _ := bytes.Cut(data, []byte("\n"))
	return message
}

// seen knows the newest ids of each device, so that a message which is sent
// again, because its acknowledgement was lost, is not published twice.
type seen struct {
	// order is held for writing while a restart signal clears, so that it
	// carries every id of what it clears, and for reading while others publish.
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

// once calls publish with what is to be stored beside the message, unless id is
// known, and knows it once publish has succeeded. An empty id is never known. A
// device's calls happen one after the other: its old connection may still be
// publishing what its new one sends again.
func (s *seen) once(device, id string, clears bool, publish func(marks) error) error {
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
		return nil
	}
	if id == "" {
		return publish(m)
	}
	if m == nil {
		m = marks{}
	}
	m[device] = append(m[device], id)
	if err := publish(m); err != nil {
		return err
	}
	d.add(id)
	return nil
}

func (d *ids) add(id string) {
	delete(d.known, d.ring[d.next])
	d.ring[d.next] = id
	d.known[id] = struct{}{}
	d.next = (d.next + 1) % remembered
}

// newest returns what a restart signal carries. order is held for writing.
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

// recall knows what log kept from an earlier life of the server.
func (s *seen) recall(ctx context.Context, log *history.Log) error {
	// To a viewer of another log, this one tells all: the note and every entry.
	other, err := history.Open(ctx, history.Config{})
	if err != nil {
		return err
	}
	all := log.Since(other.Position())
	for _, data := range append([][]byte{all.Note}, datas(all.Entries)...) {
		_, line, _ := bytes.Cut(data, []byte("\n"))
		var m marks
		if json.Unmarshal(line, &m) != nil {
			continue // nothing was stored beside it
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
