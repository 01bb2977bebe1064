package lives_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/history"
)

var (
	key   = bytes.Repeat([]byte{1}, lives.KeySize)
	other = bytes.Repeat([]byte{2}, lives.KeySize)
)

func open(t testing.TB, cfg lives.Config) *lives.Store {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = [][]byte{key}
	}
	s, err := lives.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// lived returns a life of messages that ended at a time.
func lived(ended time.Time, messages ...string) lives.Recording {
	r := lives.Recording{Life: lives.Life{Began: ended.Add(-time.Hour), Ended: ended, Cause: "restart", Messages: len(messages)}}
	for i, m := range messages {
		r.Entries = append(r.Entries, history.Entry{Seq: uint64(i + 1), At: ended.Add(-time.Minute), Data: []byte(m)})
	}
	return r
}

func add(t testing.TB, s *lives.Store, r lives.Recording) string {
	t.Helper()
	life, err := s.Add(r)
	if err != nil {
		t.Fatal(err)
	}
	return life.ID
}

func read(s *lives.Store, id string) (text string, err error) {
	err = s.Read(context.Background(), id, func(e history.Entry) error {
		text += string(e.Data) + "\n"
		return nil
	})
	return text, err
}

func ids(list []lives.Life) (all []string) {
	for _, l := range list {
		all = append(all, l.ID)
	}
	return all
}

// What is kept comes back, also after a restart, and nothing of it is in the
// files as plain text.
func TestKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lives")
	s := open(t, lives.Config{Dir: dir})
	number, percent := int64(3), 98.5
	now := time.Now()
	rows := []struct {
		why string
		r   lives.Recording
	}{
		{"one message", lived(now.Add(-3*time.Minute), "precious")},
		{"none", lived(now.Add(-2 * time.Minute))},
		{"several pieces", lived(now.Add(-time.Minute), strings.Repeat("precious ", 30_000), "end")},
	}
	for i := range rows {
		rows[i].r.Number, rows[i].r.MemoryPercent, rows[i].r.Truncated, rows[i].r.Room = &number, &percent, true, "precious-room"
	}
	for restart := range 2 {
		if restart == 0 {
			for i := range rows {
				rows[i].r.ID = add(t, s, rows[i].r)
			}
		} else {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, lives.Config{Dir: dir, Keys: [][]byte{other, key}})
		}
		if got := ids(s.List("precious-room")); !slices.Equal(got, []string{rows[2].r.ID, rows[1].r.ID, rows[0].r.ID}) {
			t.Errorf("listed: %v", got)
		}
		if got := s.List(""); len(got) != 0 {
			t.Errorf("lives of another room: %v", got)
		}
		for _, row := range rows {
			want := ""
			for _, e := range row.r.Entries {
				want += string(e.Data) + "\n"
			}
			if text, err := read(s, row.r.ID); err != nil || text != want {
				t.Errorf("%s: %d bytes, %v", row.why, len(text), err)
			}
			life, err := s.Find(row.r.ID)
			if err != nil || *life.Number != 3 || *life.MemoryPercent != percent || !life.Truncated || !life.Ended.Equal(row.r.Ended) || life.Unreadable {
				t.Errorf("%s: %+v, %v", row.why, life, err)
			}
		}
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range append(names, dir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o600)
		if info.IsDir() {
			mode = 0o700
		} else if data, _ := os.ReadFile(name); bytes.Contains(data, []byte("precious")) {
			t.Errorf("%s has plain text", name)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
	if st := s.Stats(); st.Lives != 3 || st.Bytes < 270_000 || st.Failed != 0 || st.Unreadable != 0 {
		t.Errorf("%+v", st)
	}
}

// A life of any length around the size of a piece comes back.
func TestLengths(t *testing.T) {
	s := open(t, lives.Config{Dir: t.TempDir(), Keep: 1000})
	for n := 64<<10 - 400; n < 64<<10; n += 3 {
		text := strings.Repeat("x", n)
		id := add(t, s, lived(time.Now(), text))
		if got, err := read(s, id); err != nil || got != text+"\n" {
			t.Fatalf("%d: %d bytes, %v", n, len(got), err)
		}
		if err := s.Erase(id); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that was changed in any way is refused, and the others are served.
func TestDamaged(t *testing.T) {
	now := time.Now()
	for _, row := range []struct {
		why    string
		keys   [][]byte
		late   bool // found only by reading all of it
		change func(t *testing.T, data []byte, path, second string) []byte
	}{
		{"another key", [][]byte{other}, false, func(_ *testing.T, data []byte, _, _ string) []byte { return data }},
		{"cut", nil, false, func(_ *testing.T, data []byte, _, _ string) []byte { return data[:len(data)-1] }},
		{"cut after a piece", nil, false, func(_ *testing.T, data []byte, _, _ string) []byte { return data[:len(data)-70_000] }},
		{"empty", nil, false, func(*testing.T, []byte, string, string) []byte { return nil }},
		{"longer", nil, false, func(_ *testing.T, data []byte, _, _ string) []byte { return append(data, 0) }},
		{"a bit of the text", nil, true, func(_ *testing.T, data []byte, _, _ string) []byte { data[len(data)-100_000] ^= 1; return data }},
		{"a bit of the salt", nil, false, func(_ *testing.T, data []byte, _, _ string) []byte { data[20] ^= 1; return data }},
		{"a bit of the length", nil, false, func(_ *testing.T, data []byte, _, _ string) []byte { data[34] ^= 1; return data }},
		{"another life under its name", nil, false, func(t *testing.T, _ []byte, _, second string) []byte {
			data, err := os.ReadFile(second)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}},
		{"not a life", nil, false, func(*testing.T, []byte, string, string) []byte { return []byte("#!/bin/sh\n") }},
	} {
		t.Run(row.why, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, lives.Config{Dir: dir})
			second := add(t, s, lived(now.Add(-time.Minute), "whole"))
			bad := add(t, s, lived(now, strings.Repeat("precious ", 30_000)))
			s.Close()
			path := filepath.Join(dir, bad+".life")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, row.change(t, data, path, filepath.Join(dir, second+".life")), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, lives.Config{Dir: dir, Keys: row.keys})
			if life, err := s.Find(bad); err != nil || life.Unreadable == row.late || life.Ended.IsZero() {
				t.Errorf("%+v, %v", life, err)
			}
			if text, err := read(s, bad); !errors.Is(err, lives.ErrUnreadable) || len(text) > 270_000 {
				t.Errorf("%d bytes are read: %v", len(text), err)
			}
			if life, err := s.Find(bad); err != nil || !life.Unreadable {
				t.Errorf("after reading: %+v, %v", life, err)
			}
			if text, err := read(s, second); row.keys == nil && (err != nil || text != "whole\n") {
				t.Errorf("the other life: %q, %v", text, err)
			}
			if err := s.Erase(bad); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Error("an unreadable life cannot be erased: ", err)
			}
		})
	}
}

// What a crash leaves is removed at the next start, and files of others stay.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, lives.Config{Dir: dir})
	id := add(t, s, lived(time.Now(), "a"))
	s.Close()
	stays := []string{"notes.txt", "x.life", "x.life.new", "20261399-000000-aaaaaaaa.life", id + ".life.old"}
	for _, name := range append(stays, id+".life.new") {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, lives.Config{Dir: dir})
	if got := ids(s.List("")); !slices.Equal(got, []string{id}) {
		t.Errorf("listed: %v", got)
	}
	if n, err := s.EraseAll(); n != 1 || err != nil {
		t.Error(n, err)
	}
	var names []string
	found, _ := os.ReadDir(dir)
	for _, e := range found {
		names = append(names, e.Name())
	}
	slices.Sort(stays)
	if want := slices.Sorted(slices.Values(append(stays, "lock"))); !slices.Equal(names, want) {
		t.Errorf("left: %v, want %v", names, want)
	}
}

// A directory that cannot be private is refused, with what to do.
func TestDirectories(t *testing.T) {
	base := t.TempDir()
	in := func(name string) string { return filepath.Join(base, name) }
	file, open4, real, link := in("file"), in("open"), in("real"), in("link")
	err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(open4, 0o700), os.Chmod(open4, 0o777), os.Mkdir(real, 0o700), os.Symlink(real, link))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ why, dir, says string }{
		{"a file", file, "not a directory"},
		{"any user may write to it", open4, "set the mode 0700"},
		{"a link", link, "name the directory itself"},
	} {
		if s, err := lives.Open(lives.Config{Dir: row.dir, Keys: [][]byte{key}}); s != nil || err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.why, err)
		}
	}
	s := open(t, lives.Config{Dir: real})
	if _, err := lives.Open(lives.Config{Dir: real, Keys: [][]byte{key}}); !errors.Is(err, lives.ErrLocked) {
		t.Errorf("two stores in one directory: %v", err)
	}
	s.Close()
	open(t, lives.Config{Dir: real})
	if _, err := lives.Open(lives.Config{Keys: [][]byte{key[1:]}, Keep: -1}); err == nil || !strings.Contains(err.Error(), "Dir") || !strings.Contains(err.Error(), "32 bytes") || !strings.Contains(err.Error(), "Keep") {
		t.Errorf("not every mistake is named: %v", err)
	}
}

// Only what has the form of an ID is looked for, so no ID leads out of the
// directory.
func TestIDs(t *testing.T) {
	s := open(t, lives.Config{Dir: t.TempDir()})
	id := add(t, s, lived(time.Now(), "a"))
	if !lives.ValidID(id) {
		t.Errorf("%q is no ID", id)
	}
	for _, bad := range []string{"", "..", "../" + id, id + ".life", strings.ToUpper(id), id[1:], "20261399-000000-aaaaaaaa", id + "\n", "lock"} {
		if lives.ValidID(bad) {
			t.Errorf("%q is an ID", bad)
		}
		if _, err := s.Find(bad); !errors.Is(err, lives.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := s.Erase(bad); !errors.Is(err, lives.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := read(s, bad); !errors.Is(err, lives.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The oldest lives go by number and by age, from the list and from the disk.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := lives.Open(lives.Config{Dir: dir, Keys: [][]byte{key}, Keep: 3, MaxAge: 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		for i := range 5 {
			s.Keep(lived(time.Now(), fmt.Sprint(i)))
			synctest.Wait()
			time.Sleep(time.Hour)
		}
		files := func() int {
			synctest.Wait()
			names, _ := filepath.Glob(filepath.Join(dir, "*.life"))
			return len(names)
		}
		list := s.List("")
		if len(list) != 3 || files() != 3 {
			t.Fatalf("%d are listed, %d files", len(list), files())
		}
		if text, err := read(s, list[2].ID); err != nil || text != "2\n" {
			t.Errorf("the oldest that is left is %q, %v", text, err)
		}
		time.Sleep(24*time.Hour - 3*time.Hour) // the oldest ended exactly a day ago
		if got := s.List(""); len(got) != 2 || files() != 2 {
			t.Errorf("after a day, %d are listed, %d files", len(got), files())
		}
		time.Sleep(3 * time.Hour)
		if got := s.List(""); len(got) != 0 || files() != 0 {
			t.Errorf("after all their days, %d are listed, %d files", len(got), files())
		}
		stop()
		<-done
	})
}

// Each room keeps as many lives, and those that cannot be read take no place.
func TestRetentionOfRooms(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	s := open(t, lives.Config{Dir: dir, Keys: [][]byte{other}})
	bad := add(t, s, lived(now, "sealed with another key"))
	s.Close()
	s = open(t, lives.Config{Dir: dir, Keep: 2})
	for i := range 3 {
		for _, room := range []string{"", "a"} {
			r := lived(now.Add(time.Duration(i-5)*time.Minute), fmt.Sprint(room, i))
			r.Room = room
			add(t, s, r)
		}
	}
	for _, room := range []string{"", "a"} {
		list := s.List(room)
		if len(list) != 3 || list[0].ID != bad {
			t.Fatalf("%q: %+v", room, list)
		}
		if text, err := read(s, list[2].ID); err != nil || text != room+"1\n" {
			t.Errorf("%q: the oldest is %q, %v", room, text, err)
		}
	}
	if got := s.All(); len(got) != 5 {
		t.Errorf("%d lives", len(got))
	}
}

// A life that is erased while it is read is not read on.
func TestErasedWhileRead(t *testing.T) {
	s := open(t, lives.Config{Dir: t.TempDir()})
	texts := make([]string, 100)
	for i := range texts {
		texts[i] = strings.Repeat("precious ", 1000)
	}
	id := add(t, s, lived(time.Now(), texts...))
	n := 0
	err := s.Read(t.Context(), id, func(history.Entry) error {
		if n++; n == 2 {
			return s.Erase(id)
		}
		return nil
	})
	if !errors.Is(err, lives.ErrNotFound) || n > 20 {
		t.Errorf("%d messages were read: %v", n, err)
	}
	id = add(t, s, lived(time.Now(), texts...))
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Read(ctx, id, func(history.Entry) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that has left: %v", err)
	}
	full := errors.New("full")
	if err := s.Read(t.Context(), id, func(history.Entry) error { return full }); !errors.Is(err, full) {
		t.Errorf("a reader that takes nothing: %v", err)
	}
}

// What waits for the disk is erased too.
func TestErasedWhileItWaits(t *testing.T) {
	s := open(t, lives.Config{Dir: t.TempDir()})
	s.Keep(lived(time.Now(), "precious"))
	if n, err := s.EraseAll(); n != 1 || err != nil {
		t.Error(n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ctx)
	if st := s.Stats(); st.Lives != 0 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// A life that cannot be written is lost and counted, and the store goes on. The
// log has nothing of the text.
func TestLost(t *testing.T) {
	logs := new(testkit.Log)
	s := open(t, lives.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(logs, nil))})
	for _, size := range []int64{100 << 20, 1, 1} { // one waits, however large
		large := lived(time.Now(), "precious")
		large.Bytes = size
		s.Keep(large)
	}
	if st := s.Stats(); st.Failed != 2 || st.Lives != 0 {
		t.Errorf("%+v", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ctx) // writes what waits
	for range 3 {
		part := lived(time.Now(), "precious")
		part.Bytes = 20 << 20
		s.Keep(part)
	}
	s.Run(ctx)
	if st := s.Stats(); st.Failed != 2 || st.Lives != 4 {
		t.Errorf("%+v", st)
	}
	if text := logs.String(); strings.Count(text, "a life that has ended is not kept") != 2 || strings.Contains(text, "precious") {
		t.Error(text)
	}
}

// Lives are kept, listed, read and erased at the same time.
func TestConcurrency(t *testing.T) {
	s := open(t, lives.Config{Dir: t.TempDir(), Keep: 5})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 10 {
				id, err := s.Add(lived(time.Now().Add(time.Duration(-i)*time.Minute), fmt.Sprint(i, j)))
				if err != nil {
					t.Error(err)
				}
				for _, l := range s.List("") {
					if _, err := read(s, l.ID); err != nil && !errors.Is(err, lives.ErrNotFound) {
						t.Error(err)
					}
				}
				if err := s.Erase(id.ID); err != nil && !errors.Is(err, lives.ErrNotFound) {
					t.Error(err)
				}
				s.Stats()
			}
		})
	}
	all.Wait()
	if st := s.Stats(); st.Lives != 0 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// A life that ended while the clock was ahead does not take the place of the
// next ones.
func TestRetentionAfterAClockWasAhead(t *testing.T) {
	now := time.Now()
	s := open(t, lives.Config{Dir: t.TempDir(), Keep: 1})
	add(t, s, lived(now.Add(time.Hour), "ahead"))
	for i := range 3 {
		id := add(t, s, lived(now.Add(time.Duration(i)*time.Second), fmt.Sprint(i)))
		if text, err := read(s, id); err != nil || text != fmt.Sprintln(i) {
			t.Errorf("a life that was just kept is %q, %v", text, err)
		}
		if got := len(s.All()); got > 1 {
			t.Errorf("%d lives", got)
		}
	}
}
