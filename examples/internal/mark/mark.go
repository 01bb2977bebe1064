// Package mark lets a measurement recognize its own messages in the frames of
// any server: alone in a frame, many in one frame, inside any envelope. Each
// message begins with a mark: the name of the run, the number of the message,
// and the time at which it was sent.
//
//	run=k3v9q2xa n=000000123 t=1764028140123456789
//
// A mark needs no escaping in JSON. A server may still keep messages of other
// runs; a [Finder] does not find those.
package mark

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

const (
	maxRun    = 16
	maxDigits = 18 // fits an int64
	timeSep   = "t="
)

// NewRun makes a name that no other run has.
func NewRun() string { return strings.ToLower(rand.Text()[:10]) }

// CheckRun returns an error unless run has 1 to 16 small letters and digits.
// Only the marks of such a run can be found in every envelope.
func CheckRun(run string) error {
	if run == "" || len(run) > maxRun || strings.Trim(run, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("the name of a run must be 1 to %d small letters and digits, not %q", maxRun, run)
	}
	return nil
}

// Append appends message n of run to dst, filled up to size bytes. If size is
// too small for the mark, the message is the mark alone.
func Append(dst []byte, run string, n int64, at time.Time, size int) []byte {
	start := len(dst)
	dst = fmt.Appendf(dst, "run=%s n=%09d t=%d ", run, n, at.UnixNano())
	for filler := "the quick brown fox jumps over the lazy dog "; len(dst)-start < size; {
		dst = append(dst, filler[:min(len(filler), size-(len(dst)-start))]...)
	}
	return dst
}

// Finder finds the marks of one run. It is safe for concurrent use.
type Finder struct{ prefix []byte }

// NewFinder returns a finder for a run that CheckRun accepts.
func NewFinder(run string) *Finder { return &Finder{[]byte("run=" + run + " n=")} }

// Tail is the state of a Finder between two pieces of one message: the last few
// bytes, which may be the beginning of a mark. The zero value is the state at
// the beginning of a message.
type Tail struct{ b []byte }

// Scan calls found for each mark in the next piece of a message, and returns
// the number of broken marks. last is true for the last piece of the message.
// Scan does not keep piece.
func (f *Finder) Scan(tail *Tail, piece []byte, last bool, found func(n, unixNano int64)) (broken int) {
	if len(tail.b) > 0 {
		piece = append(tail.b, piece...)
		tail.b = nil
	}
	for {
		i := bytes.Index(piece, f.prefix)
		if i < 0 {
			piece = piece[max(0, len(piece)-len(f.prefix)+1):]
			break
		}
		n, at, size, state := parse(piece[i+len(f.prefix):])
		if state == cut && !last {
			piece = piece[i:]
			break
		}
		if state == good {
			found(n, at)
		} else {
			broken++
		}
		piece = piece[i+len(f.prefix)+size:]
	}
	if !last && len(piece) > 0 {
		tail.b = bytes.Clone(piece)
	}
	return broken
}

type state int

const (
	good state = iota
	bad
	cut // valid so far, but the end is missing
)

// parse reads "000000123 t=1764028140123456789 " and returns in how many of its
// bytes no other mark can begin.
func parse(b []byte) (n, at int64, size int, s state) {
	n, size, s = number(b)
	if s != good {
		return 0, 0, size, s
	}
	rest := b[size:]
	if !bytes.HasPrefix(rest, []byte(timeSep)) {
		if bytes.HasPrefix([]byte(timeSep), rest) {
			return 0, 0, size, cut
		}
		return 0, 0, size, bad
	}
	size += len(timeSep)
	at, used, s := number(b[size:])
	return n, at, size + used, s
}

// number reads digits and the space after them.
func number(b []byte) (v int64, size int, s state) {
	for i, c := range b {
		switch {
		case c == ' ' && i > 0:
			return v, i + 1, good
		case c < '0' || c > '9' || i > maxDigits:
			return 0, i, bad
		}
		v = v*10 + int64(c-'0')
	}
	return 0, len(b), cut
}
