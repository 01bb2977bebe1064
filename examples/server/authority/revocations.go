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

// revocations are those of whole devices, in a file, so that a token which was
// revoked is not good again after a restart. Only the server writes it.
type revocations struct {
	path string

	mu     sync.Mutex
	before map[string]time.Time // by device
	behind bool                 // the file is
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
		// Going on without them would make revoked tokens good again.
		return nil, fmt.Errorf("the revocations cannot be read: %w (mend %s, or remove it and change JWT_SECRET)", err, r.path)
	}
	if r.before == nil { // the file says null
		r.before = make(map[string]time.Time)
	}
	return r, nil
}

func (r *revocations) add(device string, before time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before.After(r.before[device]) {
		r.before[device], r.behind = before, true
	}
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
