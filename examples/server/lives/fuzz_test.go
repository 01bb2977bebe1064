package lives_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/lives"
)

// For any content of a file, reading returns an error or what was written.
func FuzzFile(f *testing.F) {
	dir := f.TempDir()
	s := open(f, lives.Config{Dir: dir})
	id := add(f, s, lived(time.Now(), "precious", "words"))
	path := filepath.Join(dir, id+".life")
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{content, content[:40], append(bytes.Clone(content), content...), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := read(s, id)
		if err == nil && text != "precious\nwords\n" || err != nil && !errors.Is(err, lives.ErrUnreadable) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
