package authority

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/files"
)

// revocations are the revocations of whole devices. A file keeps them, so that
// a revoked token is still revoked after a restart. Only the server writes the
// file.
type revocations struct {
	path string

	mu     sync.Mutex
	before map[string]time.Time // by device
	behind bool                 // the last write of the file failed
}

func loadRevocations(dir string) (*revocations, error) {
	r := &revocations{path: filepath.Join(dir, "revocations.json"), before: make(map[string]time.Time)}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r.before)
	}
	if err != nil {
		// Without the revocations, revoked tokens would be valid again.
		return nil, fmt.Errorf("the revocations cannot be read: %w (fix %s, or remove it and change JWT_SECRET)", err, r.path)
	}
	if r.before == nil { // the file holds null
		r.before = make(map[string]time.Time)
	}
	return r, nil
}

// add adds a revocation and writes the file. If writing fails, the next call
// writes it again.
func (r *revocations) add(device string, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before.After(r.before[device]) {
		r.before[device], r.behind = before, true
	}
	return r.write()
}

func (r *revocations) remove(device string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.before[device]; ok {
		delete(r.before, device)
		r.behind = true
	}
	return r.write()
}

// write writes the file if it is behind. The caller holds mu.
func (r *revocations) write() error {
	if !r.behind {
		return nil
	}
	text, err := json.MarshalIndent(r.before, "", "  ")
	if err == nil {
		err = files.Replace(r.path, text)
	}
	r.behind = err != nil
	return err
}
