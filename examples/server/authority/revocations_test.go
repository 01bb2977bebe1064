package authority_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
)

// A revocation that could not be written is written by the next call. Until
// then, add reports an error.
func TestRevocationIsWrittenLater(t *testing.T) {
	dir, at := t.TempDir(), time.Now()
	r, err := authority.LoadRevocations(dir)
	if err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(dir, "revocations.json.new")
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r.Add("pi-1", at) == nil {
		t.Fatal("written through a directory")
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := r.Add("pi-1", at); err != nil {
		t.Fatal(err)
	}
	if again, err := authority.LoadRevocations(dir); err != nil || !again.Before("pi-1").Equal(at) {
		t.Errorf("add reported no error, but the file has %v, %v", again.Before("pi-1"), err)
	}
}

func TestDamagedRevocations(t *testing.T) {
	for text, ok := range map[string]bool{"{": false, `[]`: false, `null`: true, `{"pi-1":"2026-11-24T00:00:00Z"}`: true} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "revocations.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := authority.LoadRevocations(dir)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err == nil {
			err = errors.Join(r.Add("a", time.Now()), r.Add("a", time.Now().Add(-time.Hour)))
			if again, e := authority.LoadRevocations(dir); err != nil || e != nil || time.Since(again.Before("a")) > time.Hour/2 {
				t.Errorf("%s: %v %v", text, err, e)
			}
		}
	}
}
