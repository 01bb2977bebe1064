package history_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/relayguard/relayguard/history"
)

// hub is an engine in memory that several logs share.
type hub struct {
	mu      sync.Mutex
	saved   history.Saved
	changed chan struct{} // closed with each change
	ahead   time.Duration // of its clock
	fail    error         // of Load and Commit
	deaf    bool          // Commit makes the change, and does not know it
	keep    history.Config
}

func newHub() *hub {
	return &hub{saved: history.Saved{ID: 7, Line: 7}, changed: make(chan struct{})}
}

// port is what one log has of a hub.
type port struct {
	*hub
	held   bool // by hub.mu: no news comes through
	asked  bool // by hub.mu: Look was called
	looks  int
	trims  []uint64
	errs   []error // of apply
	closed int
}

func (h *hub) port() *port { return &port{hub: h} }

// do calls f with the lock held, and tells all ports.
func (h *hub) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hub) now() time.Time { return time.Now().Add(h.ahead) }

// begin begins a new line, as an engine does that may have lost the last
// entries.
func (h *hub) begin(line uint64, lost int) {
	s := &h.saved
	s.Entries = slices.Clone(s.Entries[:len(s.Entries)-lost])
	s.Last -= uint64(lost)
	s.Earlier = append(slices.Clone(s.Earlier), history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last})
	s.Skips = append(slices.Clone(s.Skips), history.Skip{After: s.Last, Count: 1000})
	s.Line, s.Last = line, s.Last+1000
}

// retain applies the limits of count and bytes.
func (h *hub) retain() {
	s, drop := &h.saved, 0
	if n := len(s.Entries); h.keep.TrimAt > 0 && n > h.keep.TrimAt {
		drop = n - h.keep.Keep
	}
	bytes := int64(0)
	for _, e := range s.Entries[drop:] {
		bytes += int64(len(e.Data))
	}
	if most := h.keep.MaxBytes; most > 0 && bytes > most {
		for ; bytes > most-most/6; drop++ {
			bytes -= int64(len(s.Entries[drop].Data))
		}
	}
	if drop > 0 {
		s.Entries, s.Note = s.Entries[drop:], nil
	}
}

func (p *port) Load(context.Context) (history.Saved, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved, p.fail
}

func (p *port) Commit(_ context.Context, c history.Change) (done history.Committed, err error) {
	p.do(func() { done, err = p.commit(c) })
	if err == nil && p.deaf {
		return history.Committed{}, history.ErrUncertain
	}
	return done, err
}

func (p *port) commit(c history.Change) (done history.Committed, err error) {
	s := &p.saved
	at := history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last}
	switch {
	case p.fail != nil:
		return done, p.fail
	case c.If != history.Head{} && c.If != at:
		return done, history.ErrMoved
	case s.Finished && (len(c.Append) > 0 || c.Finish):
		return done, history.ErrFinished
	}
	pins := p.keep.PinsOf(c.Note, s.Last+1, c.Append...)
	gone := func(seq uint64) bool { return seq > 0 && slices.Contains(c.Delete, seq) }
	unpinned := map[uint64]bool{} // entries that have nothing left but pins
	for _, q := range s.Pins {
		if gone(q.Seq) && !slices.ContainsFunc(s.Entries, func(e history.Entry) bool { return e.Seq == q.Seq }) {
			unpinned[q.Seq] = true
		}
	}
	s.Pins = slices.DeleteFunc(slices.Clone(s.Pins), func(q history.Pin) bool {
		return c.Replace || gone(q.Seq) || slices.ContainsFunc(pins, func(p history.Pin) bool { return p.Key == q.Key })
	})
	s.Pins = append(s.Pins, slices.DeleteFunc(pins, func(p history.Pin) bool { return p.Data == nil })...)
	if c.Replace {
		s.Epoch++
		s.Entries, s.Earlier, s.Skips, s.Note, s.NoteEpoch = nil, nil, nil, c.Note, s.Epoch
	}
	for _, data := range c.Append {
		s.Last++
		s.Entries = append(slices.Clone(s.Entries), history.Entry{Seq: s.Last, At: p.now(), Data: data})
	}
	rest := slices.DeleteFunc(slices.Clone(s.Entries), func(e history.Entry) bool { return slices.Contains(c.Delete, e.Seq) })
	if done.Deleted = len(s.Entries) - len(rest) + len(unpinned); done.Deleted > 0 {
		s.Entries = rest
		s.Epoch++
	}
	s.Finished = s.Finished || c.Finish
	p.retain()
	done.Head = history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last}
	return done, nil
}

func (p *port) Trim(seq uint64) {
	p.do(func() { p.trims = append(p.trims, seq) })
}

// trimmed returns the arguments of Trim.
func (p *port) trimmed() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.trims)
}

func (p *port) Look() { go p.do(func() { p.asked = true }) }

// Follow brings entries one by one if they follow, and else the whole log.
func (p *port) Follow(ctx context.Context, from history.Head, apply func(history.Update) error) {
	var finished bool
	for {
		p.mu.Lock()
		u, changed, s := history.Update{Now: p.now()}, p.changed, p.saved
		if !p.held {
			switch {
			case from.Line != s.Line || from.Epoch != s.Epoch || finished != s.Finished,
				len(s.Entries) > 0 && s.Entries[0].Seq > from.Last+1:
				u.Renew = &s
			case from.Last < s.Last:
				i := slices.IndexFunc(s.Entries, func(e history.Entry) bool { return e.Seq > from.Last })
				u.Entries = s.Entries[i:]
			}
			from, finished = history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last}, s.Finished
			if u.Checked = p.asked; p.asked {
				p.asked = false
				p.looks++
			}
		}
		p.mu.Unlock()
		if u.Renew != nil || u.Entries != nil || u.Checked {
			if err := apply(u); err != nil {
				p.do(func() { p.errs = append(p.errs, err) })
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (p *port) Close() error {
	p.do(func() { p.closed++ })
	return errPort
}

var errPort = errors.New("the port is closed")
