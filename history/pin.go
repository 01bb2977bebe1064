package history

import (
	"bytes"
	"slices"
)

// Pin is a value that outlives its entry: the last one that an entry gave to
// Key. [Config.Pins] says which values an entry gives. After retention has
// dropped the entry, its pins are still there: see [Batch.Pins].
type Pin struct {
	Key string
	// Seq is the number of the entry, by which [Log.Delete] erases the value. It
	// is 0 for the value of a note.
	Seq uint64
	// Data is the value. All readers share it, so it may not be changed. In the
	// result of Config.Pins, nil means that Key has no value from then on.
	Data []byte
}

// pin changes pins, which the caller owns, as the entry seq with data does. If
// bare is set, a key without a value stays among them.
func (c *Config) pin(pins []Pin, seq uint64, data []byte, bare bool) []Pin {
	if c.Pins == nil {
		return pins
	}
	for _, p := range c.Pins(data) {
		p.Seq = seq
		i := slices.IndexFunc(pins, func(q Pin) bool { return q.Key == p.Key })
		switch {
		case i < 0 && (p.Data != nil || bare):
			pins = append(pins, p)
		case i < 0 || pins[i].Seq > seq:
		case p.Data == nil && !bare:
			pins = slices.Delete(pins, i, i+1)
		default:
			pins[i] = p
		}
	}
	return pins
}

// pinAll returns pins with what entries change.
func (c *Config) pinAll(pins []Pin, entries []Entry) []Pin {
	if c.Pins == nil || len(entries) == 0 {
		return pins
	}
	pins = slices.Clone(pins)
	for _, e := range entries {
		pins = c.pin(pins, e.Seq, e.Data, false)
	}
	return slices.Clip(pins)
}

// PinsOf returns what note and then entries, the first of which has the number
// first, pin together. A key with nil as its Data has no value after them. If an
// entry equals note, it pins instead of the note. PinsOf is for an [Origin],
// which pins what it appends.
func (c *Config) PinsOf(note []byte, first uint64, entries ...[]byte) (pins []Pin) {
	if note != nil && !slices.ContainsFunc(entries, func(data []byte) bool { return bytes.Equal(data, note) }) {
		pins = c.pin(pins, 0, note, true)
	}
	for i, data := range entries {
		pins = c.pin(pins, first+uint64(i), data, true)
	}
	return pins
}

// Pins returns the last values that entries before Entries gave, in this epoch:
// one for each key that has a value. The values that Entries give follow them.
// If Config.Pins is nil, there are none.
func (b Batch) Pins() []Pin {
	if b.log == nil {
		return nil
	}
	return b.log.cfg.pinAll(b.pins, b.before)
}

// without returns pins without those of the entries seqs, and how many entries
// that are no longer kept they were of.
func without(pins []Pin, seqs []uint64, kept func(uint64) bool) (rest []Pin, dropped int) {
	var gone []uint64
	for _, p := range pins {
		switch {
		case p.Seq == 0 || !slices.Contains(seqs, p.Seq):
			rest = append(rest, p)
		case !kept(p.Seq) && !slices.Contains(gone, p.Seq):
			gone = append(gone, p.Seq)
		}
	}
	return rest, len(gone)
}
