package journal

import (
	"errors"
	"io/fs"
	"syscall"
)

// Reason is why an operation of a [Journal] failed. The set is closed.
type Reason string

// The reasons of an [Error].
const (
	// ReasonFull means that no space is left on the disk or in the quota, or
	// that the file would be too large.
	ReasonFull Reason = "no space left"
	// ReasonReadOnly means that this process may not write there.
	ReasonReadOnly Reason = "not writable"
	// ReasonLocked means that another journal, of this or of another process,
	// has the directory open.
	ReasonLocked Reason = "in use by another process"
	// ReasonUnsafe means that another user can change the directory, or that it
	// or a file in it is a link.
	ReasonUnsafe Reason = "the directory is not safe"
	// ReasonWrongKey means that none of Config.Keys decrypts the key file. The
	// file may be damaged instead: the journal cannot distinguish the two.
	ReasonWrongKey Reason = "none of the keys fits"
	// ReasonCorrupt means that a file was damaged or changed.
	ReasonCorrupt Reason = "damaged or changed"
	// ReasonTooLarge means that an entry or a note is longer than about 1 GiB.
	ReasonTooLarge Reason = "entry or note is too large"
	// ReasonFailed means any other failure. Error.Err describes it. It is
	// [fs.ErrClosed] if the journal is closed.
	ReasonFailed Reason = "input/output failed"
)

// Error is a failure of a [Journal]. It never holds content or a key.
//
// After ReasonFull, ReasonReadOnly and ReasonFailed, no acknowledged entry is
// lost and the journal remains usable: the next Append tries to write
// everything anew.
type Error struct {
	// Op is what failed: open, chmod, lock, load, append, sync, finish,
	// replace, rewrite, purge, destroy, rewrap or close.
	Op     string
	Reason Reason
	Err    error // the cause, or nil
}

func (e *Error) Error() string {
	s := "journal: " + e.Op + ": " + string(e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// failure returns err as an Error of op. If err wraps an Error, it returns err.
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
		{syscall.EWOULDBLOCK, ReasonLocked},
	} {
		if errors.Is(err, row.err) {
			reason = row.is
		}
	}
	return &Error{op, reason, err}
}

// corrupt returns the error of a file whose content is wrong.
func corrupt(what string) error { return &Error{"load", ReasonCorrupt, errors.New(what)} }
