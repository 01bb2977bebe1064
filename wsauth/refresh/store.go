package refresh

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrTooManyFamilies is why a [Store] that is full creates no family.
var ErrTooManyFamilies = errors.New("refresh: too many families of refresh tokens")

// Family is the line of pairs that began with one [Issuer.Issue]. Nothing in it is secret.
type Family struct {
	ID         string // random, of digits and the letters a to f
	Device     string
	Role       string
	Scope      []string
	Generation uint64    // the number of the newest pair, from 1
	IssuedAt   time.Time // when the first pair was made
	RotatedAt  time.Time // when the newest pair was made
	ValidUntil time.Time // when the family ends if it is not refreshed
	EndsAt     time.Time // when it ends in any case
}

func (f Family) tokenID() string {
	if f.ID == "" {
		return ""
	}
	return f.ID + "." + strconv.FormatUint(f.Generation, 10)
}

// StoredFamily is what a [Store] keeps of a family. No refresh token can be made of it, unless of the one before
// the newest.
type StoredFamily struct {
	Family
	Current  [sha256.Size]byte // the hash of the newest refresh token's secret
	Previous [sha256.Size]byte // the hash of the one before, zero in the first generation
	Salt     [sha256.Size]byte // what the newest was made with, of the one before
}

// Store keeps families. It must be safe for concurrent use, keep copies of what it is given and bound itself;
// families past their ValidUntil it may drop at any time. Its errors mean that it failed, and go to the caller of the
// [Issuer].
type Store interface {
	// Create adds a family, or fails with [ErrTooManyFamilies] if there is no room at the time now.
	Create(ctx context.Context, f StoredFamily, now time.Time) error
	// Load returns the family of that ID, if there is one.
	Load(ctx context.Context, id string) (StoredFamily, bool, error)
	// Rotate replaces the family of f's ID if it is there and its generation is the one before f's, and says
	// whether it was so. Checking and replacing must be one atomic step, and once true must be durable.
	Rotate(ctx context.Context, f StoredFamily) (bool, error)
	// Remove deletes the family of that ID and returns it, if there is one. Of several calls one may get it. Both a
	// family and an error mean that it is gone, but perhaps not for good.
	Remove(ctx context.Context, id string) (StoredFamily, bool, error)
	// List returns all families, in a slice that is the caller's. With an error, it returns those that it can.
	List(ctx context.Context) ([]Family, error)
}

type memoryStore struct {
	most     int
	mu       sync.Mutex
	families map[string]StoredFamily
}

func newMemoryStore(most int) *memoryStore {
	return &memoryStore{most: most, families: make(map[string]StoredFamily)}
}

func (s *memoryStore) Create(_ context.Context, f StoredFamily, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.families) >= s.most {
		// Only now, so that it costs something only where there is something to gain.
		for id, old := range s.families {
			if !now.Before(old.ValidUntil) {
				delete(s.families, id)
			}
		}
	}
	if len(s.families) >= s.most {
		return ErrTooManyFamilies
	}
	f.Scope = slices.Clone(f.Scope)
	s.families[f.ID] = f
	return nil
}

func (s *memoryStore) Load(_ context.Context, id string) (StoredFamily, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.families[id]
	return f, ok, nil
}

func (s *memoryStore) Rotate(_ context.Context, f StoredFamily) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.families[f.ID]; !ok || old.Generation+1 != f.Generation {
		return false, nil
	}
	s.families[f.ID] = f
	return true, nil
}

func (s *memoryStore) Remove(_ context.Context, id string) (StoredFamily, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.families[id]
	delete(s.families, id)
	return f, ok, nil
}

func (s *memoryStore) List(context.Context) ([]Family, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Family, 0, len(s.families))
	for _, f := range s.families {
		all = append(all, f.Family)
	}
	return all, nil
}
