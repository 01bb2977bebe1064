package journal

import (
	"context"
	"encoding/binary"
	"time"
)

// Finish implements [history.Store]. Whatever Config.Sync is, the end and all
// entries before it are on disk when it returns nil. So with KeepGoing too, it
// fails if the medium fails.
func (j *Journal) Finish(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(ctx, "finish"); err != nil {
		return err
	}
	if j.seg == nil && j.broken == nil {
		return &Error{"finish", ReasonFailed, errEarly}
	}
	if err := j.repair(); err != nil {
		return failure("finish", err)
	}
	if err := j.put([]byte{kindEnd}); err != nil {
		return failure("finish", err)
	}
	if err := j.seg.f.Sync(); err != nil {
		j.fail(failure("sync", err))
		return j.broken
	}
	j.saved.Finished = true
	return nil
}

// Close implements [history.Store]. If the medium fails, it tries once more to
// write everything. Further calls return nil.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	for _, t := range []*time.Timer{j.flush, j.purge} {
		if t != nil {
			t.Stop()
		}
	}
	if j.broken != nil {
		j.rewrite(j.saved) // the last attempt; it sets j.broken
	}
	err := j.broken
	if j.seg != nil {
		if err == nil {
			err = j.complete()
		}
		drop(&j.seg.key)
		if cerr := j.seg.f.Close(); err == nil {
			err = cerr
		}
	}
	j.unstock()
	if cerr := j.dir.Close(); err == nil {
		err = cerr
	}
	return failure("close", err)
}

// unstock removes the files for the next rewriting, and closes all that are
// void. If that fails, the next Load does it.
func (j *Journal) unstock() {
	if j.nextSegment != nil {
		j.dir.Remove(nextSegment)
	}
	if j.nextKey != nil {
		j.dir.Remove(nextKey)
	}
	drop(&j.nextSegment)
	drop(&j.nextKey)
	for i := range j.old {
		drop(&j.old[i].f)
	}
}

// complete appends a record which says that the segment is complete.
func (j *Journal) complete() error {
	if err := j.pin(); err != nil {
		return err
	}
	// All other records are synced first, since the disk may write in any
	// order.
	if err := j.seg.f.Sync(); err != nil {
		return err
	}
	return j.record(binary.BigEndian.AppendUint64([]byte{kindClose}, j.floor))
}
