package archive

import (
	"context"
	"errors"
	"fmt"
)

// A Reason is what is wrong with an archive, or with writing one.
type Reason string

// The reasons of an [Error].
const (
	ReasonForeign      Reason = "this is not an archive of a history"
	ReasonVersion      Reason = "the archive is of a newer version"
	ReasonTruncated    Reason = "the archive ends too early"
	ReasonDamaged      Reason = "the archive was changed after it was written"
	ReasonTooLong      Reason = "an entry is longer than allowed"
	ReasonEncrypted    Reason = "the archive is encrypted"
	ReasonNotEncrypted Reason = "the archive is not encrypted, though a key is given"
	ReasonNoMatch      Reason = "none of the keys opens the archive"
	ReasonUnfit        Reason = "an entry is not one that this program takes"
	ReasonFailed       Reason = "reading or writing failed"
)

// An Error says why an archive was refused or not written. It never quotes the
// archive.
type Error struct {
	Reason Reason
	Line   uint64 // of the JSON Lines, from 1; 0 where it is none's fault
	Err    error  // of the reader, the writer or ImportConfig.Check, or nil
}

func (e *Error) Error() string {
	s := "archive: " + string(e.Reason)
	if e.Line > 0 {
		s += fmt.Sprintf(" (line %d)", e.Line)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// failed makes err an Error, unless it is one, or a context's.
func failed(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Reason: ReasonFailed, Err: err}
}
