package journal_test

import (
	"os"
	"testing"
)

// The package's documentation says how many descriptors an open journal holds.
func TestDescriptors(t *testing.T) {
	if !alone(t) {
		return
	}
	open(t, config(t.TempDir()), 0).Close() // the poller has descriptors too
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	l := open(t, config(t.TempDir()), 0)
	add(t, l, "a")
	l.Clear(ctx, nil)
	add(t, l, "b")
	if n := count() - before; n != 7 {
		t.Errorf("an open journal holds %d descriptors, documented are 7", n)
	}
}
