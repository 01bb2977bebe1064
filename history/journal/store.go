package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"time"

	"github.com/relayguard/relayguard/history"
)

var _ history.Store = (*Journal)(nil)

// Less waste than this does not cause a rewriting.
const wasteFloor = 16 << 10

// maxLines is the number of earlier lines that a journal remembers.
const maxLines = 64

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
		return &Error{op, ReasonFailed, fs.ErrClosed}
	}
	return ctx.Err()
}

func (j *Journal) load() (history.Saved, error) {
	gens, voids, err := j.scan()
	if err != nil {
		return history.Saved{}, err
	}
	if len(gens) == 0 {
		j.old = voids
		err := j.sweep()
		j.stock()
		return history.Saved{}, err
	}
	var seg *segment
	var c contents
	var skipped error
	for _, gen := range gens {
		if seg, c, err = j.open(gen); !errors.Is(err, errNoKey) {
			break
		}
		// A key file without its magic text was overwritten after a rewriting
		// that failed. The generation before is then the current one.
		skipped = cmp.Or(skipped, err)
	}
	if err != nil {
		return history.Saved{}, cmp.Or(skipped, err)
	}
	if skipped != nil && j.cfg.OnWarning != nil {
		j.cfg.OnWarning(skipped)
	}
	for _, v := range voids {
		if v.name != name(seg.gen, extKey) && v.name != name(seg.gen, extSegment) {
			j.old = append(j.old, v)
		}
	}
	j.seg = seg
	if err := j.sweep(); err != nil {
		return history.Saved{}, err
	}
	j.adopt(c)
	s, err := j.resume(c)
	j.stock()
	return s, err
}

// open reads the files of generation gen.
func (j *Journal) open(gen uint64) (*segment, contents, error) {
	seg := &segment{gen: gen}
	c, err := j.readSegment(seg)
	if err != nil {
		drop(&seg.key)
		drop(&seg.f)
	}
	return seg, c, err
}

func (j *Journal) readSegment(seg *segment) (c contents, err error) {
	if seg.key, err = j.dir.Open(name(seg.gen, extKey)); err != nil {
		return c, err
	}
	data, err := content(seg.key)
	if err != nil {
		return c, err
	}
	if seg.dataKey, seg.head, err = unwrap(j.cfg.Keys, data, seg.gen); err != nil {
		return c, err
	}
	if seg.aead, err = sealer(seg.dataKey); err != nil {
		return c, err
	}
	seg.f, err = j.dir.Open(name(seg.gen, extSegment))
	if errors.Is(err, fs.ErrNotExist) {
		return c, corrupt("the segment is missing")
	}
	if err != nil {
		return c, err
	}
	if data, err = content(seg.f); err != nil {
		return c, err
	}
	if c, err = seg.read(data); err != nil {
		return c, err
	}
	seg.size, seg.records = c.end, c.records
	return c, nil
}

// adopt makes c the state of the journal, in a new line.
func (j *Journal) adopt(c contents) {
	h := j.seg.head
	s := history.Saved{
		ID: h.id, Line: cmp.Or(c.line, h.line, h.id), Earlier: c.earlier, Epoch: h.epoch, Last: h.last,
		NoteEpoch: h.noteEpoch, Note: c.note, Finished: c.ended, Pins: c.pins, Entries: c.entries,
	}
	if n := len(s.Entries); n > 0 {
		s.Last = max(s.Last, s.Entries[n-1].Seq)
	}
	end := history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last}
	// No position names a line in which nothing happened.
	if n := len(s.Earlier); n == 0 || s.Earlier[n-1].Epoch != end.Epoch || s.Earlier[n-1].Last != end.Last {
		s.Earlier = append(s.Earlier, end)
	}
	s.Earlier = s.Earlier[max(len(s.Earlier)-maxLines, 0):]
	for s.Line == end.Line || s.Line == 0 {
		var b [8]byte
		rand.Read(b[:])
		s.Line = binary.BigEndian.Uint64(b[:])
	}
	j.saved, j.fresh, j.pinned = s, true, s.Pins
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
		if _, err := j.rewrite(j.saved); err != nil {
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

var errEarly = errors.New("Load and Replace must be called first")

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
		return &Error{"append", ReasonFailed, errEarly}
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
	if err := j.pin(); err != nil {
		return err
	}
	j.seg.plain = entryPlain(j.seg.plain[:0], j.floor, e)
	if err := j.put(j.seg.plain); err != nil {
		return err
	}
	return j.sync()
}

// put writes the record that holds plain, after the one that begins the line if
// that is not written yet.
func (j *Journal) put(plain []byte) error {
	s := j.seg
	s.out = s.out[:0]
	records := s.records
	if j.fresh {
		s.out = s.frame(s.out, linePlain(nil, j.saved.Line, j.saved.Earlier[len(j.saved.Earlier)-1]))
	}
	s.out = s.frame(s.out, plain)
	if broken, err := s.write(s.out, s.records-records); err != nil {
		if broken {
			j.fail(failure("append", err))
		}
		return err
	}
	j.fresh = false
	return nil
}

// pin writes the pins that are not in the segment. The floor, which says that
// the entries of these pins are dropped, follows them.
func (j *Journal) pin() error {
	same := func(p, q history.Pin) bool { return p.Key == q.Key && p.Seq == q.Seq }
	for _, p := range j.pinned {
		if !slices.ContainsFunc(j.saved.Pins, func(q history.Pin) bool { return p.Key == q.Key }) {
			if err := j.put(append([]byte{kindUnpin}, p.Key...)); err != nil {
				return err
			}
			j.waste += pinSpace(p)
		}
	}
	for _, p := range j.saved.Pins {
		if slices.ContainsFunc(j.pinned, func(q history.Pin) bool { return same(p, q) }) {
			continue
		}
		if err := j.put(pinPlain(p)); err != nil {
			return err
		}
		j.waste += pinSpace(p) // at the latest when another follows
	}
	j.pinned = j.saved.Pins
	return nil
}

// repair writes everything anew if the segment is broken or has much waste.
func (j *Journal) repair() error {
	if j.broken == nil && (j.waste < wasteFloor || j.waste < j.seg.size/2) {
		return nil
	}
	_, err := j.rewrite(j.saved)
	return err
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
// not changed, unless the error wraps [history.ErrNotErased]. Then the new
// state is in use, but the old state may still be readable and may be back
// after a power failure. The next Append tries again to destroy it.
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
	committed, err := j.rewrite(s)
	switch {
	case committed && err != nil:
		err = unfinished(err)
	case err != nil && !j.cfg.KeepGoing:
		return failure("replace", err)
	case err != nil:
		ferr := j.forget()
		j.fail(failure("replace", err))
		if ferr != nil {
			return ferr
		}
		err = nil
	}
	s.Entries = slices.Clone(s.Entries)
	j.saved = s
	return err
}

// unfinished returns err as the error of a change that was made.
func unfinished(err error) error {
	var known *Error
	if errors.As(failure("destroy", err), &known) && known.Err != nil {
		err = known.Err
	}
	return &Error{known.Op, known.Reason, fmt.Errorf("%w: %w", history.ErrNotErased, err)}
}

// Trim implements [history.Store]. It writes nothing: the next Append writes the
// pins, and the next rewriting leaves the dropped entries out, at most an hour
// later.
func (j *Journal) Trim(seq uint64, pins []history.Pin) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.saved.Pins = pins
	j.trim(seq)
	if j.waste > 0 && j.purge == nil {
		j.due = time.Now().Add(purgeAfter).Round(0)
		j.purge = time.AfterFunc(purgeStep, j.onPurge)
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

// onPurge is the function of the purge timer. It compares the wall clock, since
// timers stand still while the machine sleeps. If the clock was set back by
// more than the wait, the time has come too.
func (j *Journal) onPurge() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.purge == nil {
		return
	}
	if wait := j.due.Sub(time.Now().Round(0)); wait > 0 && wait <= purgeAfter {
		j.purge.Reset(min(wait, purgeStep))
		return
	}
	j.purge = nil
	if j.seg != nil && j.waste > 0 {
		if _, err := j.rewrite(j.saved); err != nil {
			j.fail(failure("purge", err))
		}
	}
}

func (j *Journal) stopPurge() {
	if j.purge != nil {
		j.purge.Stop()
		j.purge = nil
	}
}

// Err returns the [*Error] of the last attempt to write, if the medium fails,
// else nil. The next Append tries again, but with KeepGoing not before ten
// seconds have passed.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}
