package journal

import (
	"errors"
	"io/fs"
	"syscall"
)

// A Reason is what kind of failure an [Error] is.
type Reason string

// The reasons of an [Error].
const (
	ReasonFull     Reason = "no space left"
	ReasonReadOnly Reason = "not writable"
	ReasonLocked   Reason = "in use by another process"
	ReasonWrongKey Reason = "no key of the ring opens it"
	ReasonCorrupt  Reason = "damaged, or changed by somebody"
	ReasonTooLarge Reason = "entry is too large"
	ReasonClosed   Reason = "closed"
	ReasonFailed   Reason = "input/output failed"
)

// An Error is a failure of a [Journal]. It holds no content and no key.
//
// After ReasonFull, ReasonReadOnly or ReasonFailed nothing that was acknowledged is lost, and the
// journal may be used on: the next Append tries to write everything anew.
type Error struct {
	Op     string // open, lock, load, append, sync, replace, destroy, rewrap
	Reason Reason
	Err    error // may be nil
}

func (e *Error) Error() string {
	s := "journal: " + e.Op + ": " + string(e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// failure makes err an Error of op. An Error keeps its own op and reason.
func failure(op string, err error) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	}
	reason := ReasonFailed
	for _, row := range []struct {
		err error
		is  Reason
	}{
		{syscall.ENOSPC, ReasonFull}, {syscall.EDQUOT, ReasonFull}, {syscall.EFBIG, ReasonFull},
		{syscall.EROFS, ReasonReadOnly}, {fs.ErrPermission, ReasonReadOnly},
		{syscall.EWOULDBLOCK, ReasonLocked}, {fs.ErrClosed, ReasonClosed},
	} {
		if errors.Is(err, row.err) {
			reason = row.is
		}
	}
	return &Error{op, reason, err}
}

func corrupt(what string) error { return &Error{"load", ReasonCorrupt, errors.New(what)} }
