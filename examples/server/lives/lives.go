// Package lives keeps the lives that have ended: each in an encrypted file of
// its own, in a directory that belongs to one server.
//
// A life is what viewers could see between two restart signals. Its file is
// written to another name, synced and renamed, so a crash leaves either all of
// it or nothing. A limit of number and one of age remove the oldest lives.
//
// # A file
//
// A file is a magic text, a salt, and pieces of at most 64 KiB. Each piece is
// sealed with AES-256-GCM. The key is derived with HKDF-SHA256 from the master
// key, the salt and the life's ID, so a file under another name cannot be
// opened. Each piece is bound to its place and to whether it is the last, so
// that no piece can be moved, repeated or left out. The first piece describes
// the life, and the others are an archive of package archive.
//
// An erasure overwrites the salt before it removes the file. A backup of the
// directory still has what it had: the master key opens it.
package lives

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/history"
)

// Defaults of [Config].
const (
	DefaultKeep   = 100
	DefaultMaxAge = 30 * 24 * time.Hour
)

// KeySize is the length of a key, in bytes.
const KeySize = 32

var (
	// ErrNotFound means that there is no life with that ID.
	ErrNotFound = errors.New("lives: there is no life with this ID")
	// ErrUnreadable means that the file of a life cannot be opened: it was
	// sealed with another key, or it is damaged.
	ErrUnreadable = errors.New("lives: the life cannot be read: it was sealed with another key, or its file is damaged")
	// ErrLocked means that another process uses the directory.
	ErrLocked = errors.New("lives: another process uses the directory")
	// ErrOwner means that the directory belongs to another user.
	ErrOwner = errors.New("lives: another user can change the directory")
)

// Config configures a [Store]. Dir and Keys are required.
type Config struct {
	Dir string // belongs to this process alone; made if it does not exist
	// Keys are the keys of 32 bytes: the first seals, and all open.
	Keys   [][]byte
	Keep   int           // number of lives of each room; default [DefaultKeep]
	MaxAge time.Duration // since a life's end; default [DefaultMaxAge]
	Log    *slog.Logger  // gets failures and removals; nil: nothing is logged
}

// Store is a directory with lives. It is safe for concurrent use.
type Store struct {
	cfg Config
	dir *dir

	queue  chan queued
	queued atomic.Int64 // bytes of the messages in queue
	failed atomic.Uint64

	mu     sync.Mutex
	erased uint64 // calls of EraseAll
	lives  map[string]*kept
	closed bool
}

// kept is a life in the directory.
type kept struct {
	Life
	size int64       // of the file
	gone atomic.Bool // it is erased
}

// Open opens the directory and reads the description of each life in it. It
// makes the directory private (mode 0700), locks it, and removes what a crash
// left behind. It leaves other files alone. A life that it cannot read is
// listed as such, also if its file belongs to another user.
//
// The caller calls [Store.Run] to keep lives, and at the end [Store.Close].
func Open(cfg Config) (*Store, error) {
	var errs []error
	if cfg.Dir == "" {
		errs = append(errs, errors.New("lives: Config.Dir is required"))
	}
	if len(cfg.Keys) == 0 || slices.ContainsFunc(cfg.Keys, func(key []byte) bool { return len(key) != KeySize }) {
		errs = append(errs, fmt.Errorf("lives: Config.Keys must be keys of %d bytes", KeySize))
	}
	if cfg.Keep < 0 || cfg.MaxAge < 0 {
		errs = append(errs, errors.New("lives: Config.Keep and MaxAge must not be negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.Keep == 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d, err := openDir(cfg.Dir, func(err error) {
		cfg.Log.Warn("the directory of lives is not as it should be; it is used all the same", "dir", cfg.Dir, "error", err)
	})
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, dir: d, queue: make(chan queued, waiting), lives: make(map[string]*kept)}
	if err := s.load(); err != nil {
		d.close()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retain(time.Now(), nil)
	return s, nil
}

// load reads the description of each life.
func (s *Store) load() error {
	names, err := s.dir.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if leftover(name) {
			_ = s.dir.root.Remove(name) // else the next start tries again
			continue
		}
		id, ok := idOf(name)
		if !ok {
			continue
		}
		life, size, err := s.describe(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went meanwhile
			continue
		case errors.Is(err, ErrUnreadable):
			s.cfg.Log.Warn("a life cannot be read: set HISTORY_KEY_PREVIOUS to the key that sealed it, or erase it", "life", id, "error", err)
		case err != nil:
			s.cfg.Log.Warn("the file of a life cannot be read: give it to the user that the server runs as, and restart, or erase it", "life", id, "error", err)
		}
		s.lives[id] = &kept{Life: life, size: size}
	}
	return nil
}

// describe returns the description of a life and the size of its file. It
// returns both with any other error than fs.ErrNotExist too.
func (s *Store) describe(id string) (Life, int64, error) {
	f, size, err := s.dir.open(fileName(id))
	if errors.Is(err, errForeign) {
		return unreadable(id, size), size, ErrUnreadable
	}
	if err != nil {
		return unreadable(id, size), size, err
	}
	defer f.Close()
	r, err := newReader(f, s.cfg.Keys, id)
	if err == nil && r.size != size {
		err = fmt.Errorf("%w (its file has %d bytes, and not %d)", ErrUnreadable, size, r.size)
	}
	if err != nil {
		return unreadable(id, size), size, err
	}
	return r.life, size, nil
}

func unreadable(id string, size int64) Life {
	return Life{ID: id, Ended: endOf(id), Bytes: size, Unreadable: true}
}

// Add writes a life at once and returns its description. After an error, the
// life is not kept.
func (s *Store) Add(r Recording) (Life, error) { return s.add(queued{r, s.generation()}) }

func (s *Store) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.erased
}

func (s *Store) add(q queued) (Life, error) {
	r := q.Recording
	r.ID = newID(r.Ended)
	r.Unreadable = false
	size, err := s.dir.write(r.ID, func(w io.Writer) (int64, error) { return seal(w, s.cfg.Keys[0], r) })
	if err != nil {
		return Life{}, fmt.Errorf("lives: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lives[r.ID] = &kept{Life: r.Life, size: size}
	if q.erased != s.erased {
		return Life{}, errors.Join(errErased, s.remove(s.lives[r.ID]))
	}
	s.retain(time.Now(), s.lives[r.ID])
	return r.Life, nil
}

// Expire removes the lives that are too old at the time now, and returns how
// long it takes until it should be called again.
func (s *Store) Expire(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retain(now, nil)
}

// retain removes the lives beyond the limits. fresh, if not nil, counts as the
// newest: if a clock was ahead, others may have ended later.
func (s *Store) retain(now time.Time, fresh *kept) time.Duration {
	next := look
	newer := make(map[string]int) // lives of a room; those that cannot be read count apart
	list := s.sorted(func(*Life) bool { return true })
	if i := slices.Index(list, fresh); i > 0 {
		list = slices.Insert(slices.Delete(list, i, i+1), 0, fresh)
	}
	for _, k := range list {
		of := k.Room
		if k.Unreadable {
			of = "?" // no room has this name
		}
		newer[of]++
		left := k.Ended.Add(s.cfg.MaxAge).Sub(now)
		if newer[of] <= s.cfg.Keep && left > 0 {
			next = min(next, left)
			continue
		}
		if err := s.remove(k); err != nil {
			s.failed.Add(1)
			s.cfg.Log.Error("a life that is too old cannot be removed", "life", k.ID, "error", err)
		}
	}
	return max(next, time.Second)
}

// sorted returns the lives of which is true, newest first. The caller holds mu.
func (s *Store) sorted(which func(*Life) bool) []*kept {
	var list []*kept
	for _, k := range s.lives {
		if which(&k.Life) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b *kept) int {
		if c := b.Ended.Compare(a.Ended); c != 0 {
			return c
		}
		if a.ID < b.ID { // as Compare does
			return 1
		}
		return -1
	})
	return list
}

// remove destroys the file of a life. The caller holds mu.
func (s *Store) remove(k *kept) error {
	k.gone.Store(true)
	if err := s.dir.destroy(fileName(k.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(s.lives, k.ID)
	return nil
}

// List returns the lives of a room, newest first, without those that are too
// old. The room of the only conversation is empty. Unreadable lives are of
// every room.
func (s *Store) List(room string) []Life {
	return s.list(func(l *Life) bool { return l.Room == room || l.Unreadable })
}

// All is [Store.List] with the lives of all rooms.
func (s *Store) All() []Life { return s.list(func(*Life) bool { return true }) }

func (s *Store) list(which func(*Life) bool) []Life {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := time.Now().Add(-s.cfg.MaxAge)
	list := []Life{}
	for _, k := range s.sorted(which) { // a visitor of one room must not cost a sort of all
		if k.Ended.After(oldest) && !k.gone.Load() {
			list = append(list, k.Life)
		}
	}
	return list
}

// Find returns a life. The error is [ErrNotFound], also if id is no ID.
func (s *Store) Find(id string) (Life, error) {
	k, err := s.find(id)
	if err != nil {
		return Life{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return k.Life, nil
}

func (s *Store) find(id string) (*kept, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.lives[id]
	if k == nil || k.gone.Load() || time.Since(k.Ended) >= s.cfg.MaxAge {
		return nil, ErrNotFound
	}
	return k, nil
}

// Read calls each with every message of a life, in order, and holds only a
// piece of the file in memory. It returns [ErrNotFound] or [ErrUnreadable], the
// latter also after some messages, the error of each, or that of ctx. If the
// life is erased meanwhile, Read stops with ErrNotFound.
func (s *Store) Read(ctx context.Context, id string, each func(history.Entry) error) error {
	k, err := s.find(id)
	if err != nil {
		return err
	}
	f, _, err := s.dir.open(fileName(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("lives: %w", err)
	}
	defer f.Close()
	r, err := newReader(f, s.cfg.Keys, id)
	if err == nil {
		r.stop = func() error {
			if k.gone.Load() {
				return ErrNotFound
			}
			return ctx.Err()
		}
		err = r.entries(each)
	}
	if errors.Is(err, ErrUnreadable) && k.gone.Load() {
		return ErrNotFound // its salt was overwritten
	}
	if errors.Is(err, ErrUnreadable) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !k.Unreadable {
			k.Life = unreadable(id, k.size)
			s.cfg.Log.Warn("a life cannot be read", "life", id, "error", err)
		}
	}
	return err
}

// Erase destroys a life. The error is [ErrNotFound] if there is none.
func (s *Store) Erase(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.lives[id]
	if k == nil {
		return ErrNotFound
	}
	return s.remove(k)
}

// EraseAll destroys all lives, also those that still wait for the disk, and
// returns how many there were. After an error, the others are destroyed.
func (s *Store) EraseAll() (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erased++ // for a life that is being written
	for drained := false; !drained; {
		select {
		case q := <-s.queue:
			s.queued.Add(-q.Bytes)
			n++
		default:
			drained = true
		}
	}
	for _, k := range s.lives {
		if failed := s.remove(k); failed != nil {
			err = errors.Join(err, failed)
		} else {
			n++
		}
	}
	return n, err
}

// Stats returns the figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Lives: len(s.lives), Failed: s.failed.Load()}
	for _, k := range s.lives {
		st.Bytes += k.size
		if k.Unreadable {
			st.Unreadable++
		}
	}
	return st
}

// Close ends the use of the directory. [Store.Run] must have returned.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.dir.close()
}
