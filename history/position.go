package history

import (
	"encoding/base64"
	"encoding/binary"
)

// A Position is a place in a log, between two entries. It is comparable, and
// its text is a token for clients to hand back, even after a restart: a log
// that cannot honour it answers with a [Batch.Reset], never with a gap.
//
// The text is opaque and of no secret: it tells how many entries there were.
// A forged one harms nobody but its reader.
type Position struct {
	log, epoch, seq uint64
}

// Oldest is before everything kept at the moment it is used. It is the zero
// value.
func Oldest() Position { return Position{} }

// Latest is after everything appended at the moment it is used.
func Latest() Position { return Position{seq: 1} }

// Seq returns the sequence number of the entry before the position: after an
// Append, that of the appended entry. It is what [Log.Delete] takes.
func (p Position) Seq() uint64 {
	if p.log == 0 {
		return 0
	}
	return p.seq
}

// String returns p as a token of letters, digits, '-' and '_', at most 38
// characters long and usually 16, or "oldest" or "latest".
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

// MarshalText makes p a JSON string.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is [ParsePosition].
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}

// ParsePosition is the reverse of [Position.String]. It accepts nothing but
// what String returns; all else is [ErrPosition].
func ParsePosition(s string) (Position, error) {
	switch {
	case s == "oldest":
		return Oldest(), nil
	case s == "latest":
		return Latest(), nil
	case len(s) > 38:
		return Position{}, ErrPosition
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) < 10 {
		return Position{}, ErrPosition
	}
	p := Position{log: binary.BigEndian.Uint64(raw)}
	raw = raw[8:]
	var n, m int
	if p.epoch, n = binary.Uvarint(raw); n > 0 {
		p.seq, m = binary.Uvarint(raw[n:])
	}
	// Base64 and varints have several spellings of one value; one is enough. (The
	// text of a position without a log is a word.)
	if n <= 0 || m <= 0 || n+m != len(raw) || p.String() != s {
		return Position{}, ErrPosition
	}
	return p, nil
}
