//go:build unix

package archive_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
)

// ExportFile replaces ordinary files only, and what else is there is left as it
// is.
func TestExportOntoOtherThings(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{os.Symlink(target, at("link")), os.Symlink(at("nothing"), at("dangling")), os.Symlink(os.DevNull, at("null")), syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("dir"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.ReadDir(dir)
	for _, row := range []struct{ why, name, says string }{
		{"a link to a file", at("link"), "is a link"},
		{"a link to nothing", at("dangling"), "is a link"},
		{"a link to a device", at("null"), "is a link"},
		// A pipe stands for devices: a test that fails must not replace one.
		{"a pipe", at("pipe"), "no ordinary file"},
		{"a directory", at("dir"), "no ordinary file"},
	} {
		read := false
		entries := func(yield func(history.Entry) bool) { read = true }
		_, err := archive.ExportFile(ctx, row.name, entries, archive.ExportConfig{})
		if reason(err) != archive.ReasonFailed || !strings.Contains(err.Error(), row.says) || read {
			t.Errorf("%s: %v, entries read: %v", row.why, err, read)
		}
	}
	after, _ := os.ReadDir(dir)
	if got, _ := os.ReadFile(target); string(got) != "precious" || len(after) != len(before) {
		t.Errorf("the target holds %q, and the directory %v", got, after)
	}
	for name, mode := range map[string]os.FileMode{"link": os.ModeSymlink, "pipe": os.ModeNamedPipe} {
		if info, err := os.Lstat(at(name)); err != nil || info.Mode().Type() != mode {
			t.Errorf("the %s is %v", name, info.Mode())
		}
	}
}
