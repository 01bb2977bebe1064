package journal

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/history"
)

const (
	extKey     = ".key"
	extSegment = ".segment"
)

// name returns the name of the file of generation gen with this extension.
func (j *Journal) name(gen uint64, ext string) string {
	return filepath.Join(j.cfg.Dir, fmt.Sprintf("%016x%s", gen, ext))
}

// scan finds the current generation, which is the highest one with a key file.
// The files of all others become void.
func (j *Journal) scan() (gen uint64, found bool, err error) {
	dir, err := os.ReadDir(j.cfg.Dir)
	if err != nil {
		return 0, false, err
	}
	var names []string
	for _, entry := range dir {
		name := entry.Name()
		var g uint64
		var ext string
		if n, _ := fmt.Sscanf(name, "%016x%s", &g, &ext); n != 2 || !slices.Contains([]string{extKey, extSegment, extKey + ".tmp"}, ext) {
			continue
		}
		j.gen = max(j.gen, g)
		if ext == extKey && (g >= gen || !found) {
			gen, found = g, true
		}
		names = append(names, filepath.Join(j.cfg.Dir, name))
	}
	for _, name := range names {
		if !found || name != j.name(gen, extKey) && name != j.name(gen, extSegment) {
			j.old = append(j.old, name)
		}
	}
	return gen, found, nil
}

// sweep destroys the void files, keys first.
func (j *Journal) sweep() error {
	slices.SortStableFunc(j.old, func(a, b string) int {
		return strings.Compare(filepath.Ext(b), filepath.Ext(a)) // .tmp, .segment, .key
	})
	swept := len(j.old) > 0
	for n := len(j.old); n > 0; n-- {
		name := j.old[n-1]
		var err error
		if strings.HasSuffix(name, extSegment) {
			if err = os.Remove(name); os.IsNotExist(err) {
				err = nil
			}
		} else {
			err = destroy(name)
		}
		if err != nil {
			return failure("destroy", err)
		}
		j.old = j.old[:n-1]
	}
	if swept {
		return failure("destroy", syncDir(j.cfg.Dir))
	}
	return nil
}

// rewrite writes s to a new segment under a new data key, and destroys the old
// segment and its key. The rename of the new key file makes s the state on
// disk. If rewrite fails before the rename, the old segment stays in use. If it
// fails later, the journal is broken until another call succeeds.
func (j *Journal) rewrite(s history.Saved) error {
	if err := j.sweep(); err != nil {
		return err
	}
	j.gen++
	seg, err := j.writeSegment(s)
	keyName, segName := j.name(j.gen, extKey), j.name(j.gen, extSegment)
	if err == nil {
		var file []byte
		if file, err = wrap(j.cfg.Keys[0], seg.dataKey, seg.head, seg.gen); err == nil {
			err = writeKey(keyName, file)
		}
		if err != nil {
			seg.f.Close()
		}
	}
	if err != nil {
		err = failure("rewrite", err)
		if derr := destroy(keyName); derr != nil {
			// The new key file may remain, and then the old segment is void.
			j.old = append(j.old, keyName)
			j.fail(err)
		}
		if rerr := os.Remove(segName); rerr != nil && !os.IsNotExist(rerr) {
			j.old = append(j.old, segName)
		}
		return err
	}
	if j.seg != nil {
		j.seg.f.Close() // the file is void, so an error does not matter
		j.old = append(j.old, j.name(j.seg.gen, extSegment), j.name(j.seg.gen, extKey))
	}
	j.seg, j.waste, j.floor = seg, 0, 0
	if j.purge != nil {
		j.purge.Stop()
		j.purge = nil
	}
	j.fail(j.sweep())
	return j.broken
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
	if err := destroy(j.name(j.seg.gen, extKey)); err != nil {
		return failure("destroy", err)
	}
	j.seg.f.Close() // the file is void, so an error does not matter
	j.old = append(j.old, j.name(j.seg.gen, extSegment))
	j.seg = nil
	return j.sweep()
}

// writeSegment writes and syncs a segment that holds s. Without a key file, the
// segment is not the state on disk yet.
func (j *Journal) writeSegment(s history.Saved) (seg *segment, err error) {
	seg = &segment{gen: j.gen, dataKey: make([]byte, KeySize)}
	rand.Read(seg.dataKey)
	if seg.aead, err = sealer(seg.dataKey); err != nil {
		return nil, err
	}
	if seg.f, err = create(j.name(seg.gen, extSegment)); err != nil {
		return nil, err
	}
	w := bufio.NewWriter(seg.f)
	put := func(b []byte) {
		n, _ := w.Write(b) // Flush returns this error too
		seg.size += int64(n)
	}
	put([]byte(segMagic))
	if j.cfg.lax() {
		put(seg.frame(nil, []byte{kindOpen}))
	}
	if s.Note != nil {
		put(seg.frame(nil, append([]byte{kindNote}, s.Note...)))
	}
	for _, e := range s.Entries {
		seg.plain = entryPlain(seg.plain[:0], 0, e)
		seg.out = seg.frame(seg.out[:0], seg.plain)
		put(seg.out)
	}
	seg.head = head{s.ID, s.Epoch, s.Last, s.NoteEpoch, seg.records}
	if err = w.Flush(); err == nil {
		err = seg.f.Sync()
	}
	if err == nil {
		err = syncDir(j.cfg.Dir)
	}
	if err != nil {
		seg.f.Close()
		return nil, err
	}
	return seg, nil
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
	name := j.name(j.seg.gen, extKey)
	file, err := wrap(j.cfg.Keys[0], j.seg.dataKey, j.seg.head, j.seg.gen)
	if err != nil {
		return err
	}
	before, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer before.Close()
	if err := writeKey(name, file); err != nil {
		return err
	}
	return shred(before)
}
