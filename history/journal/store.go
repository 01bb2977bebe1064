package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/relayguard/relayguard/history"
)

var _ history.Store = (*Journal)(nil)

// Less waste than this does not cause a rewriting.
const wasteFloor = 16 << 10

// unwritten is more than the number of epochs that can have begun in memory
// only.
const unwritten = 1 << 16

// Load implements [history.Store]. After a crash, it removes incomplete files
// and destroys old keys.
func (j *Journal) Load(ctx context.Context) (history.Saved, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(ctx, "load"); err != nil {
		return history.Saved{}, err
	}
	if j.loaded {
		return history.Saved{}, &Error{"load", ReasonFailed, errors.New("Load was called before")}
	}
	saved, err := j.load()
	j.loaded = err == nil // else Replace would destroy what Load could not read
	return saved, failure("load", err)
}

// ready returns an error if the journal is closed or ctx has ended.
func (j *Journal) ready(ctx context.Context, op string) error {
	if j.closed {
		return &Error{op, ReasonClosed, nil}
	}
	return ctx.Err()
}

func (j *Journal) load() (history.Saved, error) {
	gen, found, err := j.scan()
	if err != nil {
		return history.Saved{}, err
	}
	if !found {
		return history.Saved{}, j.sweep()
	}
	file, err := os.ReadFile(j.name(gen, extKey))
	if err != nil {
		return history.Saved{}, err
	}
	seg := &segment{gen: gen}
	if seg.dataKey, seg.head, err = unwrap(j.cfg.Keys, file, gen); err != nil {
		return history.Saved{}, err
	}
	if seg.aead, err = sealer(seg.dataKey); err != nil {
		return history.Saved{}, err
	}
	data, err := os.ReadFile(j.name(gen, extSegment))
	if os.IsNotExist(err) {
		return history.Saved{}, corrupt("the segment is missing")
	}
	if err != nil {
		return history.Saved{}, err
	}
	c, err := seg.read(data)
	if err != nil {
		return history.Saved{}, err
	}
	if seg.f, err = os.OpenFile(j.name(gen, extSegment), os.O_RDWR, 0); err != nil {
		return history.Saved{}, err
	}
	seg.size, seg.records = c.end, c.records
	j.seg = seg
	if err := j.sweep(); err != nil {
		return history.Saved{}, err
	}
	j.adopt(c)
	return j.resume(c)
}

// adopt makes c the state of the journal.
func (j *Journal) adopt(c contents) {
	h := j.seg.head
	s := history.Saved{ID: h.id, Epoch: h.epoch, Last: h.last, NoteEpoch: h.noteEpoch, Note: c.note, Entries: c.entries}
	if n := len(s.Entries); n > 0 {
		s.Last = max(s.Last, s.Entries[n-1].Seq)
	}
	j.saved = s
	j.trim(c.floor)
}

// resume prepares the journal for appends to the segment that held c, and
// returns the state for Load.
func (j *Journal) resume(c contents) (history.Saved, error) {
	d := Dropped{Bytes: c.cut}
	if c.records < j.seg.head.records {
		d.Missing = j.seg.head.records - c.records
	}
	dropped := d != Dropped{}
	if dropped && j.cfg.OnDropped != nil {
		j.cfg.OnDropped(d)
	}
	if dropped || c.lax {
		// The numbers of lost entries will be used again.
		j.saved.Epoch++
		if j.cfg.KeepGoing {
			j.saved.Epoch += unwritten
		}
		if err := j.rewrite(j.saved); err != nil {
			return history.Saved{}, err
		}
	} else if j.cfg.lax() {
		if err := j.record([]byte{kindOpen}); err != nil {
			return history.Saved{}, err
		}
	}
	s := j.saved
	s.Entries = slices.Clone(s.Entries) // the log and the journal both append
	return s, nil
}

// record appends one record and syncs the segment.
func (j *Journal) record(plain []byte) error {
	if _, err := j.seg.write(j.seg.frame(nil, plain), 1); err != nil {
		return err
	}
	return j.seg.f.Sync()
}

// Append implements [history.Store]. If it fails, the state of the journal has
// not changed, and a later call may succeed.
func (j *Journal) Append(ctx context.Context, e history.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(ctx, "append"); err != nil {
		return err
	}
	if len(e.Data) > maxRecord-entrySize-overhead {
		return &Error{"append", ReasonTooLarge, nil}
	}
	if j.seg == nil && j.broken == nil {
		return &Error{"append", ReasonFailed, errors.New("Load and Replace must be called first")}
	}
	if err := j.append(e); err != nil {
		err = failure("append", err)
		if !j.cfg.KeepGoing {
			return err
		}
		if err != j.broken {
			j.fail(err)
		}
	}
	j.saved.Entries = append(j.saved.Entries, e)
	j.saved.Last = e.Seq
	return nil
}

// append writes e to the segment, after a repair if one is due.
func (j *Journal) append(e history.Entry) error {
	if j.broken != nil && j.cfg.KeepGoing && time.Now().Before(j.retry) {
		return j.broken
	}
	if err := j.repair(); err != nil {
		return err
	}
	s := j.seg
	s.plain = entryPlain(s.plain[:0], j.floor, e)
	s.out = s.frame(s.out[:0], s.plain)
	if broken, err := s.write(s.out, 1); err != nil {
		if broken {
			j.fail(failure("append", err))
		}
		return err
	}
	return j.sync()
}

// repair writes everything anew if the segment is broken or has much waste.
func (j *Journal) repair() error {
	if j.broken == nil && (j.waste < wasteFloor || j.waste < j.seg.size/2) {
		return nil
	}
	return j.rewrite(j.saved)
}

// sync syncs the segment after a write, now or later, as Config.Sync says.
func (j *Journal) sync() error {
	switch j.cfg.Sync {
	case SyncAlways:
		if err := j.seg.f.Sync(); err != nil {
			// From now on it is unknown how much of the file is on disk, and a
			// second Sync may succeed without writing the rest.
			j.fail(failure("sync", err))
			return j.broken
		}
	case SyncInterval:
		if j.flush == nil {
			j.flush = time.AfterFunc(j.cfg.Every, j.onFlush)
		}
	}
	return nil
}

func (j *Journal) onFlush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flush = nil
	if !j.closed && j.broken == nil {
		if err := j.seg.f.Sync(); err != nil {
			j.fail(failure("sync", err))
		}
	}
}

// Replace implements [history.Store]. If it fails, the state of the journal has
// not changed. If the error has the Op "destroy", the old state may still be
// readable, and the new state may be on disk; the next Append then writes the
// old state again.
func (j *Journal) Replace(ctx context.Context, s history.Saved) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(ctx, "replace"); err != nil {
		return err
	}
	if !j.loaded {
		return &Error{"replace", ReasonFailed, errors.New("Load has not succeeded")}
	}
	for _, e := range s.Entries {
		if len(e.Data) > maxRecord-entrySize-overhead {
			return &Error{"replace", ReasonTooLarge, nil}
		}
	}
	if len(s.Note) > maxRecord-overhead-1 {
		return &Error{"replace", ReasonTooLarge, nil}
	}
	if err := j.rewrite(s); err != nil {
		if err = failure("replace", err); !j.cfg.KeepGoing || j.broken == err {
			return err
		}
		ferr := j.forget()
		j.fail(err)
		if ferr != nil {
			return ferr
		}
	}
	s.Entries = slices.Clone(s.Entries)
	j.saved = s
	return nil
}

// Trim implements [history.Store]. It writes nothing: the next rewriting leaves
// the dropped entries out, at most an hour later.
func (j *Journal) Trim(seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.trim(seq)
	if j.waste > 0 && j.purge == nil {
		j.purge = time.AfterFunc(purgeAfter, j.onPurge)
	}
}

// trim drops the entries up to and including seq from the state.
func (j *Journal) trim(seq uint64) {
	j.floor = max(j.floor, seq)
	all := j.saved.Entries
	n := sort.Search(len(all), func(i int) bool { return all[i].Seq > j.floor })
	for _, e := range all[:n] {
		j.waste += entrySpace(e)
	}
	if n > 0 {
		j.saved.Entries = slices.Clone(all[n:])
	}
}

func (j *Journal) onPurge() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.purge = nil
	if !j.closed && j.seg != nil && j.waste > 0 {
		if err := j.rewrite(j.saved); err != nil {
			j.fail(failure("purge", err))
		}
	}
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
			err = j.finish()
		}
		if cerr := j.seg.f.Close(); err == nil {
			err = cerr
		}
	}
	if cerr := j.lock.Close(); err == nil {
		err = cerr
	}
	return failure("close", err)
}

// finish appends a record which says that the segment is complete.
func (j *Journal) finish() error {
	// All other records are synced first, since the disk may write in any
	// order.
	if err := j.seg.f.Sync(); err != nil {
		return err
	}
	return j.record(binary.BigEndian.AppendUint64([]byte{kindClose}, j.floor))
}

// Err returns the [*Error] of the last attempt to write, if the medium fails,
// else nil. The next Append tries again, but with KeepGoing not before ten
// seconds have passed.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}
