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
	Full     Reason = "no space left"
	ReadOnly Reason = "not writable"
	Locked   Reason = "in use by another process"
	WrongKey Reason = "no key of the ring opens it"
	Corrupt  Reason = "damaged, or changed by somebody"
	TooLarge Reason = "entry is too large"
	Closed   Reason = "closed"
	Failed   Reason = "input/output failed"
)

// An Error is a failure of a [Journal]. It holds no content and no key.
//
// After Full, ReadOnly or Failed nothing that was acknowledged is lost, and the
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
	reason := Failed
	for _, row := range []struct {
		err error
		is  Reason
	}{
		{syscall.ENOSPC, Full}, {syscall.EDQUOT, Full}, {syscall.EFBIG, Full},
		{syscall.EROFS, ReadOnly}, {fs.ErrPermission, ReadOnly},
		{syscall.EWOULDBLOCK, Locked}, {fs.ErrClosed, Closed},
	} {
		if errors.Is(err, row.err) {
			reason = row.is
		}
	}
	return &Error{op, reason, err}
}

func corrupt(what string) error { return &Error{"load", Corrupt, errors.New(what)} }
