// Package mark is how a measurement recognises its own messages in whatever a
// server makes of them: alone in a frame, many in one, inside any envelope.
// Each message begins with a mark that names the run, counts and says when it
// was sent:
//
//	run=k3v9q2xa n=000000123 t=1764028140123456789
//
// A mark needs no escaping in JSON. Messages of other runs, which a server may
// still keep, are not found.
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

// CheckRun refuses what could not be found again in every envelope.
func CheckRun(run string) error {
	if run == "" || len(run) > maxRun || strings.Trim(run, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("a run is named by 1 to %d small letters and digits, not %q", maxRun, run)
	}
	return nil
}

// Append appends message n of run to dst, filled up to size bytes. A size too
// small for the mark gives the mark alone.
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

// Tail is what a Finder remembers between two pieces of one message: the few
// bytes that may be the beginning of a mark. The zero value is the beginning of
// a message.
type Tail struct{ b []byte }

// Scan calls found for each mark in the next piece of a message, and returns
// how many marks were broken. last says that the message ends with this piece.
// The bytes are not kept.
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
	cut // good so far, and not at its end
)

// parse reads "000000123 t=1764028140123456789 " and returns how many bytes of
// it are certainly no new mark.
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

// number reads digits and the space behind them.
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
