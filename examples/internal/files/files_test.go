package files_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/files"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// only fails the test if dir holds anything but the named files.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range found {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %q, want %q", got, names)
	}
}

func TestReplace(t *testing.T) {
	for _, row := range []struct {
		why     string
		prepare func(t *testing.T, dir string)
		left    []string
	}{
		{"a new file", func(*testing.T, string) {}, []string{"f"}},
		{"a longer old file", func(t *testing.T, dir string) { write(t, dir+"/f", "a longer text than the next") }, []string{"f"}},
		{"a slot that a crash left behind", func(t *testing.T, dir string) { write(t, dir+"/f.new", "half") }, []string{"f"}},
		{"a link stays a link, or a mounted secret would lose its place", func(t *testing.T, dir string) {
			write(t, dir+"/real", "old")
			if err := os.Symlink("real", dir+"/f"); err != nil {
				t.Fatal(err)
			}
		}, []string{"f", "real"}},
	} {
		t.Run(row.why, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			row.prepare(t, dir)
			if err := files.Replace(path, []byte("new")); err != nil {
				t.Fatal(err)
			}
			if got := content(t, path); got != "new" {
				t.Errorf("the file holds %q", got)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v (%v), want one for the owner alone", info.Mode(), err)
			}
			only(t, dir, row.left...)
		})
	}
}

func TestFailedReplacementsChangeNothing(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(target, "full"), 0o700); err != nil { // no file can take its name
		t.Fatal(err)
	}
	if err := files.Replace(target, []byte("new")); err == nil {
		t.Error("a directory was replaced")
	}
	only(t, dir, "f")
	if err := files.Replace(filepath.Join(dir, "absent", "f"), []byte("new")); err == nil || !strings.Contains(err.Error(), "must be writable") {
		t.Errorf("%v, want the advice", err)
	}
}

func TestSlots(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "old")
	slot, err := files.Reserve(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "old" {
		t.Errorf("reserving made it %q", got)
	}
	slot.Discard()
	only(t, dir, "f")

	if slot, err = files.Reserve(path, 100); err != nil {
		t.Fatal(err)
	}
	if err := slot.Commit([]byte("short")); err != nil {
		t.Fatal(err)
	}
	next, err := files.Reserve(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	slot.Discard() // must not remove the next slot
	if err := next.Commit([]byte("after")); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "after" {
		t.Errorf("the file holds %q", got)
	}
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := files.Create(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := files.Create(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want fs.ErrExist", err)
	}
	if got := content(t, path); got != "first" {
		t.Errorf("the file holds %q", got)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "12345")
	if got, err := files.Read(path, 5); err != nil || string(got) != "12345" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := files.Read(path, 4); err == nil {
		t.Error("a file beyond the bound was read")
	}
}
