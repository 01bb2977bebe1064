package relay

import (
	"cmp"
	"slices"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
)

// Pins is the [history.Config].Pins of the relay's log: what a message says once
// and what still holds when the message is no longer kept.
func Pins(data []byte) (pins []history.Pin) {
	message := Shown(data)
	if !wire.Says(message) {
		return nil
	}
	m, ok := wire.Stored(message)
	if !ok {
		return nil
	}
	for key, part := range wire.Parts(&m) {
		p := history.Pin{Key: key}
		if part != nil {
			p.Data = part.Bytes()
		}
		pins = append(pins, p)
	}
	return pins
}

// Weight is a [history.Config].Weigh: the number of bytes of a message's text,
// and at least 1.
func Weight(data []byte) int64 {
	m, _ := wire.Stored(Shown(data))
	return max(int64(len(m.Text)), 1)
}

// sorted returns pins in the order in which they were said.
func sorted(pins []history.Pin) []history.Pin {
	return slices.SortedFunc(slices.Values(pins), func(a, b history.Pin) int { return cmp.Compare(a.Seq, b.Seq) })
}

// before returns the state before the entries of b, and after returns the state
// that entries then make of it.
func before(b history.Batch) (s wire.State) {
	for _, p := range sorted(b.Pins()) {
		if m, ok := wire.Stored(p.Data); ok {
			s.Take(&m)
		}
	}
	return s
}

func after(s wire.State, entries []history.Entry) wire.State {
	for _, e := range entries {
		if message := Shown(e.Data); wire.Says(message) {
			if m, ok := wire.Stored(message); ok {
				s.Take(&m)
			}
		}
	}
	return s
}

// told returns the encoded messages of a history frame whose clients have state
// before it. Clients of the original system know no state, so the first message
// says what it lacks.
func told(state wire.State, messages [][]byte) [][]byte {
	if state.IsZero() {
		return messages
	}
	if len(messages) == 0 {
		m := state.Message()
		return append(messages, m.Bytes())
	}
	if m, ok := wire.Stored(messages[0]); ok && state.Fill(&m) {
		messages[0] = m.Bytes()
	}
	return messages
}

// MaxPinned is the largest number of entries that [Archived] adds.
const MaxPinned = 4

// Archived returns the entries of an archive: what the pins of a log say, in
// messages without text and with the numbers by which they can be erased, and
// then the log's own entries, with their messages as viewers see them.
func Archived(pins []history.Pin, entries []history.Entry) (list []history.Entry) {
	pins = sorted(pins)
	for len(pins) > 0 {
		seq := pins[0].Seq
		var s wire.State
		for len(pins) > 0 && pins[0].Seq == seq {
			if m, ok := wire.Stored(pins[0].Data); ok {
				s.Take(&m)
			}
			pins = pins[1:]
		}
		m := s.Message()
		list = append(list, history.Entry{Seq: seq, At: time.UnixMilli(m.Timestamp), Data: m.Bytes()})
	}
	n := len(list)
	for _, e := range entries {
		e.Data = Shown(e.Data)
		list = append(list, e)
	}
	if n > 0 && list[0].Seq == 0 {
		// The note of a restart signal has no number.
		list[0].Seq = 1
		if len(list) > 1 && list[1].Seq == 1 {
			note, _ := wire.Stored(list[0].Data)
			m, _ := wire.Stored(list[1].Data)
			var s wire.State
			if s.Take(&note); s.Fill(&m) {
				list[1].Data = m.Bytes()
			}
			list, n = list[1:], n-1
		}
	}
	for i := min(n, len(list)-1) - 1; i >= 0; i-- {
		if list[i].At.After(list[i+1].At) {
			list[i].At = list[i+1].At // the message was dated before the entry
		}
	}
	return list
}

// Newest returns the last n entries. If it leaves others out, the first of them
// says what those said that still holds, as far as it fits into a message.
func Newest(entries []history.Entry, n int) []history.Entry {
	if len(entries) <= n {
		return entries
	}
	state := after(wire.State{}, entries[:len(entries)-n])
	entries = slices.Clone(entries[len(entries)-n:])
	first := &entries[0]
	if m, ok := wire.Stored(first.Data); ok && state.Fill(&m) && shortest(&m) <= MaxMessage {
		first.Data = m.Bytes()
	}
	return entries
}
