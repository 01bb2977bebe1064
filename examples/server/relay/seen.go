package relay

import "sync"

// remembered is how many of a device's ids are known again.
const remembered = 1000

// seen knows the newest ids of each device, so that a message which is sent again,
// because its acknowledgement was lost, is not published twice.
type seen struct {
	mu      sync.Mutex
	devices map[string]*ids
}

type ids struct {
	mu    sync.Mutex
	known map[string]struct{}
	ring  [remembered]string
	next  int
}

// once calls publish unless id is known, and knows it once publish has succeeded.
// A device's calls happen one after the other: its old connection may still be
// publishing what its new one sends again.
func (s *seen) once(device, id string, publish func() error) error {
	d := s.of(device)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.known[id]; ok {
		return nil
	}
	if err := publish(); err != nil {
		return err
	}
	delete(d.known, d.ring[d.next])
	d.ring[d.next] = id
	d.known[id] = struct{}{}
	d.next = (d.next + 1) % remembered
	return nil
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
