package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// faulty is a log with a journal in a faultDir.
type faulty struct {
	dir *faultDir
	j   *journal.Journal
	log *history.Log
}

func openFaulty(dir *faultDir, keepGoing bool) (f faulty, err error) {
	f = faulty{dir: dir, j: journal.OpenIn(dir, journal.Config{Keys: [][]byte{key1}, KeepGoing: keepGoing})}
	f.log, err = history.Open(ctx, history.Config{Store: f.j})
	return f, err
}

// texts returns the texts of the entries, and a dot if the log is finished.
func (f faulty) texts() string {
	list := texts(f.log.Since(history.Oldest()))
	if f.log.Finished() {
		list = append(list, ".")
	}
	return strings.Join(list, " ")
}

// change is an operation that faults may hit.
type change struct {
	name   string
	erases bool
	after  string // the texts after it; before, they are "a b"
	do     func(f faulty) error
}

var changes = []change{
	{"append", false, "a b c", func(f faulty) error { _, err := f.log.Append(ctx, []byte("c")); return err }},
	{"finish", false, "a b .", func(f faulty) error { return f.log.Finish(ctx) }},
	{"clear", true, "", func(f faulty) error { _, err := f.log.Clear(ctx, nil); return err }},
	{"replace", true, "x y", func(f faulty) error {
		_, err := f.log.Replace(ctx, []byte("note"), []byte("x"), []byte("y"))
		return err
	}},
	{"delete", true, "b", func(f faulty) error { _, err := f.log.Delete(ctx, 2); return err }},
	{"rewrap", true, "a b", func(f faulty) error { return f.j.Rewrap(ctx) }},
	// The second fault may hit the repair instead, or an erasure after it.
	{"clear and append", true, "z", func(f faulty) error {
		_, err := f.log.Clear(ctx, nil)
		_, err2 := f.log.Append(ctx, []byte("z"))
		return errors.Join(err, err2)
	}},
	{"clear twice", true, "", func(f faulty) error {
		_, err := f.log.Clear(ctx, nil)
		_, err2 := f.log.Clear(ctx, nil)
		return errors.Join(err, err2)
	}},
	{"close", false, "a b", func(f faulty) error { return f.log.Close() }},
	{"restart", false, "a b", func(f faulty) error {
		if err := f.log.Close(); err != nil {
			return err
		}
		_, err := openFaulty(f.dir, false)
		return err
	}},
}

// TestPairsOfFaults lets every pair of calls of the file system fail, in all
// ways, during each kind of change, the second one also as a crash. The journal
// must then hold the state before or after the change, and what it reported
// must be true.
func TestPairsOfFaults(t *testing.T) {
	for _, keepGoing := range []bool{false, true} {
		base := &faultDir{names: map[string]*inode{}, durable: map[string]*inode{}}
		f, err := openFaulty(base, keepGoing)
		if err != nil {
			t.Fatal(err)
		}
		add(t, f.log, "old")
		f.log.Clear(ctx, nil)
		f.log.Close()
		if f, err = openFaulty(base, keepGoing); err != nil {
			t.Fatal(err)
		}
		f.log.Replace(ctx, nil, []byte("a"), []byte("b"))
		f.log.Close()
		for _, c := range changes {
			t.Run(fmt.Sprintf("%s, KeepGoing %v", c.name, keepGoing), func(t *testing.T) {
				runs := 0
				for first := 0; ; first++ {
					hit := 0
					for _, how := range []fault{fails, late, crashes} {
						for second := first; ; second++ {
							reached := 0
							for _, how2 := range []fault{fails, late, crashes} {
								if second == first && how2 != fails {
									continue // one fault alone
								}
								n := oneRun(t, base, keepGoing, c, map[int]fault{second: how2, first: how})
								reached = max(reached, n)
								runs++
							}
							hit = max(hit, reached)
							if reached <= second || how == crashes || testing.Short() && second > first+5 {
								break
							}
						}
						if t.Failed() {
							return
						}
					}
					if hit <= first {
						break
					}
				}
				t.Logf("%d runs", runs)
			})
		}
	}
}

// oneRun makes the change c with these faults and returns the number of calls.
// The faults of a pair are numbered from the begin of the change.
func oneRun(t *testing.T, base *faultDir, keepGoing bool, c change, faults map[int]fault) int {
	t.Helper()
	dir := base.clone()
	f, err := openFaulty(dir, keepGoing)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{}
	for name, n := range dir.names {
		if strings.HasSuffix(name, ".key") {
			keys[name] = bytes.Clone(n.data)
		}
	}
	dir.calls, dir.faults = 0, faults
	err = c.do(f)
	calls := dir.calls
	dir.faults = nil
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%v (1 fails, 2 late, 3 crash): returned %v: %s", faults, err, fmt.Sprintf(format, args...))
	}
	possible := []string{"a b", c.after}
	inMemory := c.after
	switch unfinished := errors.Is(err, history.ErrNotErased); {
	case unfinished && !c.erases:
		bad("this change erases nothing")
	case err == nil && (!keepGoing || c.name == "finish"):
		possible = possible[1:]
	case err != nil && !unfinished:
		inMemory = "a b"
	}
	if two := strings.HasPrefix(c.name, "clear "); two && err != nil {
		inMemory = f.texts()
		possible = []string{"a b", "a b z", "", "z"}
	} else if two {
		possible = append(possible, c.after)
	}
	if keepGoing && c.erases {
		possible = append(possible, "") // destroyed, to be written later
	}
	if got := f.texts(); got != inMemory {
		bad("the log holds %q, want %q", got, inMemory)
	}
	if err == nil && c.erases {
		for name, key := range keys {
			for _, n := range dir.inodes {
				if bytes.Equal(n.data, key) || bytes.Equal(n.durable, key) {
					bad("%s can still be read", name)
				}
			}
		}
	}
	for how, left := range dir.crashed() {
		again, lerr := openFaulty(left, keepGoing)
		if lerr != nil {
			bad("%s: it does not open: %v", how, lerr)
		} else if got := again.texts(); !slices.Contains(possible, got) {
			bad("%s: it holds %q, want one of %q", how, got, possible)
		}
	}
	if c.name == "clear twice" && err != nil && !dir.dead { // and once more
		if _, err := f.log.Clear(ctx, nil); err != nil {
			bad("it does not recover: %v", err)
		}
		inMemory = ""
	}
	if dir.dead || c.name == "close" || c.name == "restart" || f.log.Finished() {
		return calls
	}
	// The medium works again, and the process is still there.
	if keepGoing {
		if err := f.log.Close(); err != nil {
			bad("closing: %v", err)
		}
	} else {
		if _, err := f.log.Append(context.Background(), []byte("z")); err != nil {
			bad("it does not recover: %v", err)
		}
		inMemory = strings.TrimSpace(inMemory + " z")
	}
	for how, left := range dir.crashed() {
		again, lerr := openFaulty(left, keepGoing)
		if lerr != nil {
			bad("recovered, %s: it does not open: %v", how, lerr)
		} else if got := again.texts(); got != inMemory {
			bad("recovered, %s: it holds %q, want %q", how, got, inMemory)
		}
	}
	return calls
}
