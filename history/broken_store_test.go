package history_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/relayguard/relayguard/history"
)

// panicky is a Store whose methods panic while on is set.
type panicky struct {
	fakeStore
	on *bool
}

func (p *panicky) blow() {
	if *p.on {
		panic("a bug in the store")
	}
}
func (p *panicky) Append(ctx context.Context, e history.Entry) error {
	p.blow()
	return p.fakeStore.Append(ctx, e)
}
func (p *panicky) Replace(ctx context.Context, s history.Saved) error {
	p.blow()
	return p.fakeStore.Replace(ctx, s)
}
func (p *panicky) Finish(ctx context.Context) error {
	p.blow()
	return p.fakeStore.Finish(ctx)
}
func (p *panicky) Close() error {
	p.blow()
	return p.fakeStore.Close()
}

// recovers calls f as an HTTP server calls a handler, and reports whether it
// panicked.
func recovers(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// An HTTP server recovers the panic of a handler. Such a panic of a Store must
// not block the log for all others.
func TestStorePanics(t *testing.T) {
	on := false
	l := open(t, history.Config{Store: &panicky{on: &on}})
	for why, change := range map[string]func(){
		"append": func() { l.Append(t.Context(), []byte("x")) },
		"clear":  func() { l.Clear(t.Context(), nil) },
		"finish": func() { l.Finish(t.Context()) },
	} {
		on = true
		if !recovers(change) {
			t.Errorf("%s: no panic", why)
		}
		on = false
		if _, err := l.Append(t.Context(), []byte("y")); err != nil {
			t.Errorf("after a panic of %s: %v", why, err)
		}
	}
}

// hanging is a Store whose Close lasts until hang is closed.
type hanging struct {
	fakeStore
	hang chan struct{}
}

func (h *hanging) Close() error {
	<-h.hang
	return h.fakeStore.Close()
}

// A Store that hangs in Close does not keep the readers of other logs, for whom
// a server waits.
func TestSetClosesAroundAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := newSet(t, history.SetConfig{Store: func(_ context.Context, name string, _ bool) (history.Store, error) {
			if name == "hangs" {
				return &hanging{hang: hang}, nil
			}
			return &fakeStore{}, nil
		}})
		told := make(chan error, 20)
		for i := range 20 {
			l, _ := create(t, s, string(rune('a'+i)))
			go func() { _, err := l.Reader(history.Latest()).Next(context.Background()); told <- err }()
		}
		create(t, s, "hangs")
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		if len(told) != 20 || len(closed) != 0 {
			t.Errorf("%d readers were told; Close returned %v", len(told), len(closed) != 0)
		}
		close(hang)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A panic in the opening, the closing or the erasing of one log of a Set does
// not block its name, nor the end of the Set.
func TestSetPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		on, opening := false, make(chan struct{})
		var slow chan struct{}
		s := newSet(t, history.SetConfig{MaxLogs: 1, Store: func(context.Context, string, bool) (history.Store, error) {
			if slow != nil {
				close(opening)
				<-slow
				panic("a bug in the service")
			}
			return &panicky{on: &on}, nil
		}})
		slow = make(chan struct{})
		waiter := make(chan error)
		go func() {
			<-opening
			_, _, err := s.Create(t.Context(), "a")
			waiter <- err
		}()
		go func() {
			<-opening
			synctest.Wait()
			close(slow)
		}()
		if !recovers(func() { s.Create(t.Context(), "a") }) {
			t.Error("no panic of the opening")
		}
		if err := <-waiter; err == nil || errors.Is(err, history.ErrNotExist) {
			t.Errorf("a caller who waited for it: %v", err)
		}
		slow = nil
		_, release := create(t, s, "a")
		release()
		on = true
		if !recovers(func() { s.Create(t.Context(), "b") }) {
			t.Error("no panic of the eviction")
		}
		if !recovers(func() { s.Remove(t.Context(), "a", func(context.Context) error { panic("a bug in erase") }) }) {
			t.Error("no panic of the erasure")
		}
		on = false
		_, release = create(t, s, "a")
		release()
		if got := s.Stats(); got.Logs != 1 || got.InUse != 0 {
			t.Errorf("%+v", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
