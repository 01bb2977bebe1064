package history

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrMoved is returned by [Log.AppendAfter] and [Log.ReplaceAfter] if the
	// log is not at the position that the caller named. Nothing has changed.
	// Read on from that position, and try again.
	ErrMoved = errors.New("history: the log is not at this position")

	// ErrUncertain is wrapped by the error of a change that an [Origin] may
	// have made or not: it did not answer in time. A reader sees the change if
	// it was made. Before the caller makes it again, it should read on and look
	// for it.
	ErrUncertain = errors.New("history: it is not known whether the change is made")
)

// Origin decides about a log that several processes share. It is the interface
// to implement for an engine on the network; package redislog implements it for
// Redis and Valkey. Every process has a [Log] with the same Origin, which holds
// a replica of the shared log in memory. Readers read the replica, so that
// reading costs the Origin nothing.
//
// A change goes to the Origin, and comes back to every process by Follow. Only
// then do readers see it, in the order of the Origin, which is the same in all
// processes. The Origin numbers the entries, and dates them by its own clock.
//
// Commit, Trim and Look may be called from several goroutines at the same time,
// and while Follow runs. A log calls Commit also within apply, the function
// that Follow has got: if an Update brings back what the log has seen erased,
// the log erases it again, and readers never see it.
type Origin interface {
	// Load returns the shared log as it is now. If there is none yet, it begins
	// one. The log calls it once, before all other methods.
	Load(ctx context.Context) (Saved, error)

	// Commit makes the change, completely or not at all. Its error is
	// [ErrMoved], [ErrFinished], or says why the change is not made. If it does
	// not know whether the change is made, the error wraps [ErrUncertain]. If
	// the change is made, but what it erased may come back, the error wraps
	// [ErrNotErased], and the result is valid all the same.
	Commit(ctx context.Context, c Change) (Committed, error)

	// Trim says that the entries up to and including seq exceed [Config].MaxAge
	// or KeepWeight, limits that only the logs apply. Their pins stay. It
	// returns at once. Every process calls it, so most
	// calls find nothing to do.
	Trim(seq uint64)

	// Look asks Follow for an Update with Checked soon. It returns at once. A
	// log calls it if a reader has a position that the replica does not know.
	// Anybody can make up such positions, so an Origin should bound the number
	// of its looks a second.
	Look()

	// Follow calls apply with what changes after from, in order, until ctx
	// ends; then it returns. If the Origin cannot be reached, it reports that
	// in its own way and tries again. An error of apply means that the update
	// is not applied: it contradicts itself or the one before, or it has
	// brought back what was erased. Follow then loads the log anew, and reports
	// an error that comes again. An Update with Checked should come every few
	// seconds also without a call of Look, so that a loss of the Origin's
	// content is found. The log calls Follow once, in a goroutine of its own.
	Follow(ctx context.Context, from Head, apply func(Update) error)

	// Close ends the use of the Origin. It is the log's last call, after Follow
	// has returned.
	Close() error
}

// Change is one change of a shared log. With Replace or Delete, it begins a new
// epoch. A Change with Append alone appends.
type Change struct {
	// If is where the log must be. The zero Head means anywhere. If the log is
	// at another place, Commit returns ErrMoved.
	If Head
	// Replace erases all entries, pins and the note, and makes Note the note.
	Replace bool
	Note    []byte
	// Append are the data of the entries to append, after the erasing.
	Append [][]byte
	// Delete are the sequence numbers of the entries to erase, with their pins.
	// If none of them is kept, nothing changes.
	Delete []uint64
	// Finish says that nothing will be appended any more.
	Finish bool
}

// Committed is what an [Origin] has made of a [Change].
type Committed struct {
	// Head is where the log is after the change.
	Head Head
	// Deleted is how many entries were erased because of Change.Delete.
	Deleted int
}

// Update is news of a shared log. Renew, Entries and Checked may be combined,
// and then hold in this order.
type Update struct {
	// Renew is the whole log, if it is not nil. It says what the log's state
	// is, and not how it became so: readers get a Reset only if their positions
	// are not in it.
	Renew *Saved
	// Entries are the entries that follow the last one.
	Entries []Entry
	// Checked says that the Origin was asked for its head after the Update
	// before, and that the log is now there or further. A position after that
	// is then of no other process that is quicker, and its reader gets a Reset.
	Checked bool
	// Now is the time of the Origin's clock, if it is not zero. The log
	// measures the ages of entries by that clock.
	Now time.Time
}
