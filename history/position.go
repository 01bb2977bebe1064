package history

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Position is a place in a log, between two entries. Its text is a token that a
// client can keep and send back later, even after a restart of the server. If
// the log cannot go on from a position, the reader gets a [Batch] with Reset
// set, never one with a gap. Positions are comparable with ==. The zero value
// is [Oldest].
//
// The text is opaque, but not secret: it contains the number of entries
// appended before the position. A client that forges a position harms only
// itself.
type Position struct {
	log, epoch, seq uint64
}

// Oldest returns the position before all kept entries. Which entries are kept
// is decided when a method of [Log] is called with it, not before.
func Oldest() Position { return Position{} }

// Latest returns the position after the last entry. Which entry is the last is
// decided when a method of [Log] is called with it, not before.
func Latest() Position { return Position{seq: 1} }

// Seq returns the sequence number of the entry before the position. For a
// position that [Log.Append] returned, that is the appended entry, and Seq is
// the number for [Log.Delete]. For [Oldest] and [Latest] it is 0.
func (p Position) Seq() uint64 {
	if p.log == 0 {
		return 0
	}
	return p.seq
}

// String returns p as a token of letters, digits, '-' and '_'. The token has at
// most 38 characters, usually 16. For [Oldest] it is "oldest", for [Latest]
// "latest".
func (p Position) String() string {
	switch {
	case p == Latest():
		return "latest"
	case p.log == 0:
		return "oldest"
	}
	var space [8 + 2*binary.MaxVarintLen64]byte
	raw := binary.BigEndian.AppendUint64(space[:0], p.log)
	raw = binary.AppendUvarint(raw, p.epoch)
	raw = binary.AppendUvarint(raw, p.seq)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// MarshalText returns the text of [Position.String], so that p is a string in
// JSON.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText sets p to the result of [ParsePosition].
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}

// errPosition is the error of ParsePosition. It never quotes the text, because
// the text may come from anybody.
var errPosition = errors.New("history: malformed position")

// ParsePosition returns the position whose [Position.String] is s. Any other
// text is an error, which does not quote the text.
func ParsePosition(s string) (Position, error) {
	switch {
	case s == "oldest":
		return Oldest(), nil
	case s == "latest":
		return Latest(), nil
	case len(s) > 38:
		return Position{}, errPosition
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) < 10 {
		return Position{}, errPosition
	}
	p := Position{log: binary.BigEndian.Uint64(raw)}
	raw = raw[8:]
	var n, m int
	if p.epoch, n = binary.Uvarint(raw); n > 0 {
		p.seq, m = binary.Uvarint(raw[n:])
	}
	// In Base64 and in varints, one value has several spellings. Only that of
	// String is accepted, so a position without a log is accepted as a word
	// only.
	if n <= 0 || m <= 0 || n+m != len(raw) || p.String() != s {
		return Position{}, errPosition
	}
	return p, nil
}
