package journal_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/relayguard/relayguard/history/journal"
)

// faultDir is a directory in memory in which chosen calls fail. It knows what a
// power failure would leave: the names and contents that were synced.
type faultDir struct {
	names, durable map[string]*inode
	inodes         []*inode // all that ever were
	calls          int
	faults         map[int]fault // by call
	dead           bool          // the process has crashed
}

type inode struct{ data, durable []byte }

// fault is how a call fails.
type fault int

const (
	fails   fault = iota + 1 // it has no effect
	late                     // it has its effect all the same, or half of it if it writes
	crashes                  // it and all later calls have no effect
)

var errFault = errors.New("input/output error, made by the test")

// call returns whether the next call has an effect, and its error.

func (d *faultDir) call() (effect bool, err error) {
	f := d.faults[d.calls]
	d.calls++
	if f == crashes {
		d.dead = true
	}
	if d.dead || f == fails {
		return false, errFault
	}
	if f == late {
		return true, errFault
	}
	return true, nil
}

// clone returns a copy of d without faults.
func (d *faultDir) clone() *faultDir { return rebuilt(d.names, d.durable) }

// rebuilt returns a directory with these names, and durable ones.
func rebuilt(names, durable map[string]*inode) *faultDir {
	d := &faultDir{names: map[string]*inode{}, durable: map[string]*inode{}}
	copies := map[*inode]*inode{}
	for from, to := range map[*map[string]*inode]map[string]*inode{&names: d.names, &durable: d.durable} {
		for name, n := range *from {
			if copies[n] == nil {
				copies[n] = &inode{bytes.Clone(n.data), bytes.Clone(n.durable)}
				d.inodes = append(d.inodes, copies[n])
			}
			to[name] = copies[n]
		}
	}
	return d
}

// crashed returns what a crash may leave: everything, if only the process
// ended; after a power failure what was synced, of the files with their old
// names, or of those with their new names.
func (d *faultDir) crashed() map[string]*faultDir {
	lost := func(names map[string]*inode) *faultDir {
		c := rebuilt(names, names)
		for _, n := range c.inodes {
			n.data = bytes.Clone(n.durable)
		}
		return c
	}
	return map[string]*faultDir{
		"killed":                   rebuilt(d.names, d.names),
		"power failure, old names": lost(d.durable),
		"power failure, new names": lost(d.names),
	}
}

func (d *faultDir) Names() ([]string, error) {
	if _, err := d.call(); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *faultDir) Open(name string) (journal.File, error) {
	if _, err := d.call(); err != nil {
		return nil, err
	}
	n := d.names[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &faultFile{d, n}, nil
}

func (d *faultDir) Create(name string) (journal.File, error) {
	effect, err := d.call()
	if effect {
		if d.names[name] != nil {
			return nil, fs.ErrExist
		}
		n := &inode{}
		d.names[name], d.inodes = n, append(d.inodes, n)
	}
	if err != nil {
		return nil, err
	}
	return &faultFile{d, d.names[name]}, nil
}

func (d *faultDir) Rename(from, to string) error {
	effect, err := d.call()
	if effect {
		if d.names[from] == nil {
			return fs.ErrNotExist
		}
		d.names[to] = d.names[from]
		delete(d.names, from)
	}
	return err
}

func (d *faultDir) Remove(name string) error {
	effect, err := d.call()
	if effect {
		if d.names[name] == nil {
			return fs.ErrNotExist
		}
		delete(d.names, name)
	}
	return err
}

func (d *faultDir) Sync() error {
	effect, err := d.call()
	if effect {
		d.durable = maps.Clone(d.names)
	}
	return err
}

func (d *faultDir) Close() error { return nil }

type faultFile struct {
	d *faultDir
	n *inode
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if _, err := f.d.call(); err != nil {
		return 0, err
	}
	return bytes.NewReader(f.n.data).ReadAt(b, off)
}

func (f *faultFile) WriteAt(b []byte, off int64) (int, error) {
	effect, err := f.d.call()
	if effect && err != nil {
		b = b[:len(b)/2]
	}
	if effect {
		if end := int(off) + len(b); end > len(f.n.data) {
			f.n.data = append(f.n.data, make([]byte, end-len(f.n.data))...)
		}
		copy(f.n.data[off:], b)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f *faultFile) Truncate(size int64) error {
	effect, err := f.d.call()
	if effect {
		f.n.data = append(f.n.data, make([]byte, max(int(size)-len(f.n.data), 0))...)[:size]
	}
	return err
}

func (f *faultFile) Sync() error {
	effect, err := f.d.call()
	if effect {
		f.n.durable = bytes.Clone(f.n.data)
	}
	return err
}

func (f *faultFile) Close() error { return nil }

var _ io.ReaderAt = (*faultFile)(nil)
