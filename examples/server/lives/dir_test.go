package lives_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/internal/machine"
)

// A file that this user may not read, as after a copy by another user, does not
// keep the others from being served. It is listed, and can be erased.
func TestForbidden(t *testing.T) {
	if machine.RunAsOrdinaryUser(t) {
		return // root may read every file
	}
	dir := t.TempDir()
	s := open(t, lives.Config{Dir: dir})
	second := add(t, s, lived(time.Now().Add(-time.Minute), "whole"))
	bad := add(t, s, lived(time.Now(), "of another user"))
	s.Close()
	if err := os.Chmod(filepath.Join(dir, bad+".life"), 0); err != nil {
		t.Fatal(err)
	}
	logs := new(testkit.Log)
	s = open(t, lives.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(logs, nil))})
	if life, err := s.Find(bad); err != nil || !life.Unreadable || life.Ended.IsZero() || life.Bytes == 0 {
		t.Errorf("%+v, %v", life, err)
	}
	if text, err := read(s, bad); err == nil || text != "" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := read(s, second); err != nil || text != "whole\n" {
		t.Errorf("the other life: %q, %v", text, err)
	}
	if !strings.Contains(logs.String(), "give it to the user that the server runs as") || !strings.Contains(logs.String(), bad) {
		t.Errorf("the log does not say what to do: %s", logs)
	}
	if err := s.Erase(bad); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Lives != 1 || st.Unreadable != 0 {
		t.Errorf("%+v", st)
	}
}
