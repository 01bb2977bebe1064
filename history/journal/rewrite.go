package journal

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/relayguard/relayguard/history"
)

const (
	extKey     = ".key"
	extSegment = ".segment"

	// The files that the next rewriting fills and renames. The journal keeps
	// them open, so that an erasure needs no file descriptor.
	nextKey     = "next-key"
	nextSegment = "next-segment"
)

// void is a file that must be destroyed.
type void struct {
	name string // empty if the file has none any more
	f    file   // nil if it is not open
}

func (v void) isSegment() bool { return v.name == nextSegment || strings.HasSuffix(v.name, extSegment) }

// name returns the name of the file of generation gen with this extension.
func name(gen uint64, ext string) string { return fmt.Sprintf("%016x%s", gen, ext) }

// scan returns the generations with a key file, the highest first. The first
// one is the current one. All files in voids, except those of the current
// generation, are void.
func (j *Journal) scan() (gens []uint64, voids []void, err error) {
	names, err := j.dir.Names()
	if err != nil {
		return nil, nil, err
	}
	for _, n := range names {
		if n == nextKey || n == nextSegment {
			voids = append(voids, void{name: n})
			continue
		}
		if len(n) < 16 || !slices.Contains([]string{extKey, extSegment, extKey + ".tmp"}, n[16:]) {
			continue
		}
		gen, err := strconv.ParseUint(n[:16], 16, 64)
		if err != nil || name(gen, "") != n[:16] {
			continue
		}
		j.gen = max(j.gen, gen)
		if n[16:] == extKey {
			gens = append(gens, gen)
		}
		voids = append(voids, void{name: n})
	}
	slices.SortFunc(gens, func(a, b uint64) int {
		if a > b {
			return -1
		}
		return 1
	})
	return gens, voids, nil
}

// sweep destroys the void files, keys first: a segment without its key is
// unreadable, and a key without its segment would be damage.
func (j *Journal) sweep() error {
	if j.unsynced {
		// Until the rename of the current key is on disk, a power failure may
		// bring the generation before it back, which must then be whole.
		if err := j.dir.Sync(); err != nil {
			return failure("destroy", err)
		}
		j.unsynced = false
	}
	order := func(v void) int {
		switch {
		case v.name == nextKey: // others will be renamed to this name
			return 0
		case v.isSegment():
			return 2
		}
		return 1
	}
	slices.SortStableFunc(j.old, func(a, b void) int { return order(a) - order(b) })
	for len(j.old) > 0 {
		retire := j.retireKey
		if j.old[0].isSegment() {
			retire = j.retireSegment
		}
		if err := retire(&j.old[0]); err != nil {
			return failure("destroy", err)
		}
		j.old = j.old[1:]
	}
	return nil
}

// retireKey overwrites a void key file, and keeps it as the next one. A file
// with the name of a key file is never overwritten: after a crash, it would be
// the current generation, and unreadable. If the journal has renamed the file,
// v has the new name, even after an error.
func (j *Journal) retireKey(v *void) error {
	if v.name != nextKey && v.name != "" {
		drop(&j.nextKey) // the rename replaces it
		err := j.dir.Rename(v.name, nextKey)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		v.name = nextKey
		if err != nil && v.f != nil {
			v.name = "" // an earlier attempt may have renamed it, or never did
		}
	}
	if err := j.dir.Sync(); err != nil {
		return err
	}
	if v.f == nil && v.name == "" {
		return nil
	}
	if v.f == nil {
		f, err := j.dir.Open(nextKey)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		v.f = f
	}
	if err := shred(v.f); err != nil {
		return err
	}
	if v.name == "" {
		drop(&v.f)
	} else {
		drop(&j.nextKey)
		j.nextKey, v.f = v.f, nil
	}
	return nil
}

// retireSegment removes a void segment, or keeps it as the next one.
func (j *Journal) retireSegment(v *void) error {
	if v.f != nil && j.nextSegment == nil {
		if v.name != nextSegment {
			err := j.dir.Rename(v.name, nextSegment)
			if errors.Is(err, fs.ErrNotExist) { // an earlier attempt has renamed it
				drop(&v.f)
				return nil
			}
			if err != nil {
				return err
			}
			v.name = nextSegment
		}
		if err := v.f.Truncate(0); err != nil {
			return err
		}
		j.nextSegment, v.f = v.f, nil
		return nil
	}
	if err := j.dir.Remove(v.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	drop(&v.f)
	return nil
}

// drop closes *f. Nothing more is written to the file, so an error does not
// matter.
func drop(f *file) {
	if *f != nil {
		(*f).Close()
		*f = nil
	}
}

// take returns the empty file name. It is *next, if that is open.
func (j *Journal) take(next *file, name string) (file, error) {
	if f := *next; f != nil {
		*next = nil
		return f, nil
	}
	if err := j.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return j.dir.Create(name)
}

// stock opens the files for the next rewriting. If it fails, that rewriting
// tries again.
func (j *Journal) stock() {
	if len(j.old) > 0 {
		return // they may have these names
	}
	if j.nextSegment == nil {
		j.nextSegment, _ = j.take(&j.nextSegment, nextSegment)
	}
	if j.nextKey == nil {
		j.nextKey, _ = j.take(&j.nextKey, nextKey)
	}
}

// rewrite writes s to a new segment under a new data key, and destroys the old
// segment and its key. The rename of the new key file makes s the state on
// disk; committed reports whether that happened. If it did not, the old segment
// stays in use. If rewrite fails after it, or if it is not known, the journal
// is broken until another call succeeds.
func (j *Journal) rewrite(s history.Saved) (committed bool, err error) {
	if err := j.sweep(); err != nil {
		return false, err
	}
	j.gen++
	seg := &segment{gen: j.gen}
	err = j.writeSegment(seg, s)
	if err == nil {
		err = j.writeKey(seg)
	}
	renamed := err == nil
	if renamed {
		err = j.dir.Rename(nextKey, name(seg.gen, extKey))
	}
	if err != nil {
		err = failure("rewrite", err)
		j.abandon(seg, renamed, err)
		return false, err
	}
	if j.seg != nil {
		j.discard(j.seg)
	}
	j.seg, j.waste, j.floor, j.fresh, j.pinned = seg, 0, 0, false, s.Pins
	j.unsynced = true
	j.stopPurge()
	err = j.sweep()
	j.stock()
	j.fail(err)
	return true, err
}

// discard makes the files of seg void.
func (j *Journal) discard(seg *segment) {
	j.old = append(j.old, void{name(seg.gen, extKey), seg.key}, void{name(seg.gen, extSegment), seg.f})
}

// abandon destroys the files of a segment that cannot be finished because of
// err. If the rename of its key file was tried, the file system may have made
// it nevertheless.
func (j *Journal) abandon(seg *segment, renamed bool, err error) {
	if seg.f != nil {
		j.old = append(j.old, void{seg.named, seg.f})
	}
	if seg.key != nil && renamed {
		j.old = append(j.old, void{name(seg.gen, extKey), seg.key})
	} else if seg.key != nil {
		j.old = append(j.old, void{nextKey, seg.key})
	}
	if serr := j.sweep(); serr != nil && renamed {
		j.fail(err)
	}
}

// fail notes that the medium fails with err, or that it works if err is nil.
func (j *Journal) fail(err error) {
	changed := (err == nil) != (j.broken == nil)
	j.broken, j.retry = err, time.Now().Add(retryAfter)
	if changed && j.cfg.OnState != nil {
		j.cfg.OnState(err)
	}
}

// forget destroys the state on disk without writing another one. It overwrites
// the key in place, which needs no space.
func (j *Journal) forget() error {
	if j.seg == nil {
		return nil
	}
	for i := range j.old {
		if j.old[i].name == nextKey { // the rename of the current key replaces it
			j.old[i].name = ""
		}
	}
	key := void{name(j.seg.gen, extKey), j.seg.key}
	err := j.retireKey(&key)
	if err != nil && key.name != nextKey {
		return failure("destroy", err) // the state is still whole
	}
	if err != nil {
		j.old = append(j.old, key)
	}
	j.old = append(j.old, void{name(j.seg.gen, extSegment), j.seg.f})
	j.seg = nil
	if err != nil {
		return failure("destroy", err)
	}
	return j.sweep()
}

// writeSegment writes and syncs a segment that holds s. Without a key file, the
// segment is not the state on disk yet.
func (j *Journal) writeSegment(seg *segment, s history.Saved) (err error) {
	seg.dataKey = make([]byte, KeySize)
	rand.Read(seg.dataKey)
	if seg.aead, err = sealer(seg.dataKey); err != nil {
		return err
	}
	if seg.f, err = j.take(&j.nextSegment, nextSegment); err != nil {
		return err
	}
	seg.named = nextSegment
	w := bufio.NewWriter(io.NewOffsetWriter(seg.f, 0))
	put := func(b []byte) {
		n, _ := w.Write(b) // Flush returns this error too
		seg.size += int64(n)
	}
	put([]byte(segMagic))
	if j.cfg.lax() {
		put(seg.frame(nil, []byte{kindOpen}))
	}
	for i, h := range s.Earlier {
		next := s.Line
		if i+1 < len(s.Earlier) {
			next = s.Earlier[i+1].Line
		}
		put(seg.frame(nil, linePlain(nil, next, h)))
	}
	if s.Note != nil {
		put(seg.frame(nil, append([]byte{kindNote}, s.Note...)))
	}
	for _, p := range s.Pins {
		put(seg.frame(nil, pinPlain(p)))
	}
	for _, e := range s.Entries {
		seg.plain = entryPlain(seg.plain[:0], 0, e)
		seg.out = seg.frame(seg.out[:0], seg.plain)
		put(seg.out)
	}
	if s.Finished {
		put(seg.frame(nil, []byte{kindEnd}))
	}
	seg.head = head{s.ID, s.Line, s.Epoch, s.Last, s.NoteEpoch, seg.records}
	if err = w.Flush(); err == nil {
		err = seg.f.Sync()
	}
	if err == nil {
		seg.named = name(seg.gen, extSegment)
		if err = j.dir.Rename(nextSegment, seg.named); err != nil {
			// The file may have either name.
			j.old = append(j.old, void{name: nextSegment}, void{name: seg.named})
			drop(&seg.f)
		}
	}
	if err == nil {
		err = j.dir.Sync()
	}
	return err
}

// writeKey writes and syncs the key file of seg, under the name nextKey.
func (j *Journal) writeKey(seg *segment) error {
	data, err := wrap(j.cfg.Keys[0], seg.dataKey, seg.head, seg.gen)
	if err == nil {
		seg.key, err = j.take(&j.nextKey, nextKey)
	}
	if err == nil {
		_, err = seg.key.WriteAt(data, 0)
	}
	if err == nil {
		err = seg.key.Sync()
	}
	return err
}

// Rewrap encrypts the data key under the first of Config.Keys and destroys the
// old key file. It leaves the segment as it is. Afterwards the other keys are
// no longer needed.
func (j *Journal) Rewrap(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(ctx, "rewrap"); err != nil {
		return err
	}
	if j.seg == nil {
		return nil
	}
	return failure("rewrap", j.rewrap())
}

func (j *Journal) rewrap() error {
	if err := j.sweep(); err != nil {
		return err
	}
	seg := *j.seg
	seg.key = nil
	if err := j.writeKey(&seg); err != nil {
		j.abandon(&segment{key: seg.key}, false, err)
		return err
	}
	// Both files open the segment, so each may be the one that a crash leaves.
	err := j.dir.Rename(nextKey, name(seg.gen, extKey))
	if err != nil {
		drop(&seg.key)
		drop(&j.seg.key) // it is opened again when it is destroyed
		j.old = append(j.old, void{name: nextKey})
		return err
	}
	j.old = append(j.old, void{f: j.seg.key})
	j.seg.key, j.unsynced = seg.key, true
	err = j.sweep()
	j.stock()
	return err
}
