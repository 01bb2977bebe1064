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

// ErrTooManyFamilies is the error of [Store].Create if the store is full.
var ErrTooManyFamilies = errors.New("refresh: too many families of refresh tokens")

// Family describes the pairs that followed one call of [Issuer.Issue]. It
// contains no secret.
type Family struct {
	ID         string // random, of digits and the letters a to f
	Subject    string
	Role       string
	Scope      []string
	Generation uint64    // the number of the newest pair, from 1
	IssuedAt   time.Time // when the first pair was issued
	RotatedAt  time.Time // when the newest pair was issued
	ValidUntil time.Time // when the family ends if it is not refreshed
	EndsAt     time.Time // when the family ends even if it is refreshed
}

func (f Family) tokenID() string {
	if f.ID == "" {
		return ""
	}
	return f.ID + "." + strconv.FormatUint(f.Generation, 10)
}

// StoredFamily is a family in a [Store]. The newest refresh token can be
// computed from it only together with the refresh token before.
type StoredFamily struct {
	Family
	// Current is the SHA-256 of the secret of the newest refresh token.
	Current [sha256.Size]byte
	// Previous is the SHA-256 of the secret of the refresh token before the
	// newest. It is zero in the first generation.
	Previous [sha256.Size]byte
	// Salt is the random value from which, with the refresh token before it,
	// the newest refresh token was computed.
	Salt [sha256.Size]byte
}

// Store keeps families. It must be safe for concurrent use, keep copies of its
// arguments, and limit how many families it keeps. It may remove families after
// their ValidUntil at any time. An error of a Store means that the Store
// failed; the [Issuer] returns it in a [*wsauth.UnavailableError].
type Store interface {
	// Create adds a family. If there is no room for it at the time now, Create
	// returns [ErrTooManyFamilies].
	Create(ctx context.Context, f StoredFamily, now time.Time) error
	// Load returns the family of this ID, and false if there is none.
	Load(ctx context.Context, id string) (StoredFamily, bool, error)
	// Rotate replaces the family with the ID of f and returns true. It does
	// nothing and returns false if there is no such family or if its generation
	// is not from. The check and the replacement must be one
	// atomic step. If Rotate returns true without an error, the change must be
	// durable. If it returns both true and an error, the family is replaced,
	// but the old one may come back after a failure.
	Rotate(ctx context.Context, f StoredFamily, from uint64) (bool, error)
	// Remove deletes the family of this ID and returns it, and false if there
	// is none. Only one of several calls may return it. If Remove returns both
	// true and an error, the family is deleted, but may come back after a
	// failure.
	Remove(ctx context.Context, id string) (StoredFamily, bool, error)
	// List returns all families, in a slice that the caller may modify. With an
	// error, it returns those that it can read.
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
		// Search for expired families only if the room is needed.
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

func (s *memoryStore) Rotate(_ context.Context, f StoredFamily, from uint64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.families[f.ID]; !ok || old.Generation != from {
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
