package archive

import (
	"context"
	"errors"
	"fmt"
)

// Reason is why an archive was refused or could not be written. The set is
// closed.
type Reason string

// The reasons of an [Error].
const (
	// ReasonForeign means that the file is not an archive of this package.
	ReasonForeign Reason = "this is not an archive of a history"
	// ReasonVersion means that a newer version of this package wrote it.
	ReasonVersion Reason = "the archive is of a newer version"
	// ReasonTruncated means that the end of the archive is missing.
	ReasonTruncated Reason = "the archive ends too early"
	// ReasonDamaged means that the archive differs from what was written.
	ReasonDamaged Reason = "the archive was changed after it was written"
	// ReasonTooLong means that a line is longer than ImportConfig.MaxLine.
	ReasonTooLong Reason = "a line is longer than allowed"
	// ReasonEncrypted means that the archive needs an identity.
	ReasonEncrypted Reason = "the archive is encrypted"
	// ReasonNotEncrypted means that there is an identity, but that the archive
	// is plain text. Somebody may have replaced an encrypted one.
	ReasonNotEncrypted Reason = "the archive is not encrypted, although a key is given"
	// ReasonNoMatch means that no identity opens the archive.
	ReasonNoMatch Reason = "none of the keys opens the archive"
	// ReasonUnfit means that ImportConfig.Check refused an entry.
	ReasonUnfit Reason = "an entry is not acceptable"
	// ReasonFailed means that the reader or the writer failed, or the log or
	// the Store on import. Error.Err describes it.
	ReasonFailed Reason = "reading or writing failed"
)

// Error is why an archive was refused or could not be written. It never quotes
// the archive.
type Error struct {
	Reason Reason
	Line   uint64 // the number of the line, from 1; 0 if no line is wrong
	Err    error  // the cause, or the error of ImportConfig.Check, or nil
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

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// failed returns err as an Error. If err wraps an Error or the error of a
// context, it returns err.
func failed(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Reason: ReasonFailed, Err: err}
}
