package history

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
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

// A position without a log says how to find one. Its epoch is one of these, or
// 0 for Oldest and Latest.
const (
	byCount = 1 // seq is a number of entries
	byTime  = 2 // seq is a Unix time in nanoseconds
)

const (
	lastPrefix  = "last-"
	sincePrefix = "since-"
)

// Oldest returns the position before all kept entries. Which entries are kept
// is decided when a method of [Log] is called with it, not before.
func Oldest() Position { return Position{} }

// Latest returns the position after the last entry. Which entry is the last is
// decided when a method of [Log] is called with it, not before.
func Latest() Position { return Position{seq: 1} }

// Last returns the position before the last n entries. It is [Oldest] if fewer
// are kept, and [Latest] if n is below 1. Which entries are the last is decided
// when a method of [Log] is called with it, not before.
func Last(n int) Position {
	if n < 1 {
		return Latest()
	}
	return Position{epoch: byCount, seq: uint64(n)}
}

// SinceTime returns the position before the first entry whose time is t or
// later. It is [Oldest] if t is before 1970, and like [Latest] if there is no
// such entry. Which entry is the first is decided when a method of [Log] is
// called with it, not before.
func SinceTime(t time.Time) Position {
	switch {
	case t.Unix() < 0:
		return Oldest()
	case t.After(time.Unix(0, math.MaxInt64)):
		return Position{epoch: byTime, seq: math.MaxInt64}
	}
	return Position{epoch: byTime, seq: uint64(t.UnixNano())}
}

// head returns the place that a log's own position names.
func (p Position) head() Head { return Head{p.log, p.epoch, p.seq} }

// Seq returns the sequence number of the entry before the position. For a
// position that [Log.Append] returned, that is the appended entry, and Seq is
// the number for [Log.Delete]. For a position that no log gave, such as
// [Oldest], it is 0.
func (p Position) Seq() uint64 {
	if p.log == 0 {
		return 0
	}
	return p.seq
}

// String returns p as a token of letters, digits, '-' and '_'. The token has at
// most 38 characters, usually 16. For [Oldest] it is "oldest", for [Latest]
// "latest". For [Last] it is like "last-100", and for [SinceTime] "since-" and
// the Unix time in nanoseconds.
func (p Position) String() string {
	switch {
	case p == Latest():
		return "latest"
	case p.log == 0 && p.epoch == byCount:
		return lastPrefix + strconv.FormatUint(p.seq, 10)
	case p.log == 0 && p.epoch == byTime:
		return sincePrefix + strconv.FormatUint(p.seq, 10)
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
	case strings.HasPrefix(s, lastPrefix), strings.HasPrefix(s, sincePrefix):
		return parseStart(s)
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

// parseStart parses the text of Last or SinceTime.
func parseStart(s string) (Position, error) {
	kind, digits, _ := strings.Cut(s, "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return Position{}, errPosition
	}
	p := Position{epoch: byTime, seq: uint64(n)}
	if kind == "last" {
		p.epoch = byCount
	}
	if p.String() != s || p == (Position{epoch: byCount}) {
		return Position{}, errPosition
	}
	return p, nil
}
