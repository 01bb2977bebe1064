package main

//lint:file-ignore SA1019 see harness_test.go

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/history/journal"
)

const (
	testKey  = "kq3LrV0pN8xWc5ZtYb1mJd7HsGf2QaEu9iToR4CvXyM"
	otherKey = "Zx9PqLm2VbR7nTcY4KdWf0HsJg6AeUi3oX8Q1MzNr5E"
)

// durable returns a server's environment with a history in dir.
func durable(t *testing.T, dir string, more ...string) []string {
	t.Helper()
	return append([]string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "RATE_LIMIT_CONNECTIONS=1000",
		"HISTORY_DIR=" + dir, "HISTORY_KEY=" + testKey,
	}, more...)
}

func serving(t *testing.T, env []string) (*testSite, *process) {
	t.Helper()
	p := launch(t, true, t.TempDir(), env)
	return &testSite{t: t, addr: p.addr, cfg: testConfig(t)}, p
}

// publish sends texts, each with itself as its id, and waits until all are
// stored.
func (p *peer) publish(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		p.send(fmt.Sprintf(`{"text":%q,"id":%q}`, text, text))
	}
	for _, text := range texts {
		p.await(func(m map[string]any) bool { return m["ack"] == text })
	}
}

// shows waits until a new viewer's page shows exactly want.
func (s *testSite) shows(want ...string) {
	s.t.Helper()
	var got []string
	if len(want) > 0 {
		got, _ = s.viewer().texts(len(want))
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("a new viewer sees %q, want %q", got, want)
	}
}

// After a restart of the server, a viewer continues at its position, and the
// server still knows the device's ids.
func TestRestartKeepsHistoryAndPositions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	env := durable(t, dir)
	s, p := serving(t, env)
	viewer := s.viewer()
	s.publisher().publish("a", "b")
	pos, _, _ := viewer.position(2)
	if code := p.terminate(); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}

	s, p = serving(t, env)
	s.shows("a", "b")
	back := s.resume(pos)
	s.publisher().publish("b", "c") // b is sent again
	if _, kind, texts := back.position(1); kind != "live" || !slices.Equal(texts, []string{"c"}) {
		t.Errorf("the viewer that came back got %q in a %s frame, want only c, live", texts, kind)
	}
	s.shows("a", "b", "c")
	p.terminate() // all that the server has logged is read
	for _, secret := range []string{testKey, testSecret, `"a"`} {
		if strings.Contains(p.stderr.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// After a restart signal, the server still knows the ids of the cleared
// messages if the device sends them again, whether or not the signal itself is
// kept.
func TestRestartSignalIsRemembered(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]string{
		"bare": `{"text":"","id":"r","status":{"is_restarting":true}}`,
		"kept": `{"text":"anew","id":"r","status":{"is_restarting":true}}`,
	} {
		t.Run(name, func(t *testing.T) {
			env := durable(t, filepath.Join(t.TempDir(), "history"))
			s, p := serving(t, env)
			device := s.publisher()
			device.publish("a", "b")
			device.send(signal)
			device.await(func(m map[string]any) bool { return m["ack"] == "r" })
			device.publish("c")
			p.terminate()

			s, _ = serving(t, env)
			device = s.publisher()
			device.publish("a", "b")
			device.send(signal)
			device.await(func(m map[string]any) bool { return m["ack"] == "r" })
			device.publish("c", "d")
			if name == "bare" {
				s.shows("c", "d")
			} else {
				s.shows("anew", "c", "d")
			}
		})
	}
}

// A server that is killed while it stores messages loses no acknowledged
// message. If the device sends the rest again, no message is stored twice.
func TestKilledWhilePublishing(t *testing.T) {
	const n, enough = 2000, 300
	dir := filepath.Join(t.TempDir(), "history")
	env := durable(t, dir, "HISTORY_KEEP=10000")
	s, p := serving(t, env)
	device := s.publisher()
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := range n {
			ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
			err := device.ws.Write(ctx, 1, fmt.Appendf(nil, `{"text":"%d","id":"%d"}`, i, i))
			cancel()
			if err != nil {
				return
			}
		}
	})
	acked := 0
	for {
		m, err := device.next()
		if err != nil {
			break
		}
		if m["ack"] != nil {
			if acked++; acked == enough {
				if err := p.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	sending.Wait()
	p.wait()
	if acked < enough {
		t.Fatalf("only %d were acknowledged: the test has killed nothing", acked)
	}

	s, _ = serving(t, env)
	got, _ := s.viewer().texts(acked)
	for i := range acked {
		if got[i] != strconv.Itoa(i) {
			t.Fatalf("message %d is %q, of %d acknowledged", i, got[i], acked)
		}
	}
	device = s.publisher()
	var rest []string
	for i := acked - 10; i < acked+100; i++ { // messages that a device would send again
		rest = append(rest, strconv.Itoa(i))
	}
	device.publish(rest...)
	device.publish("last")
	got, _ = s.viewer().texts(acked + 101)
	if len(got) < acked+101 || !slices.IsSortedFunc(got[:len(got)-1], func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	}) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("after sending again: %q", got)
	}
}

// After a restart signal, no key opens a copy of the old segment.
func TestRestartSignalDestroysTheOld(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, dir))
	device := s.publisher()
	device.publish("a secret of the old life")
	backup := copied(t, dir, "*.segment")
	before, _ := filepath.Glob(filepath.Join(dir, "*.key"))

	device.send(`{"text":"new","id":"r","status":{"is_restarting":true}}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "r" })
	after, _ := filepath.Glob(filepath.Join(dir, "*.key"))
	if len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Fatalf("keys before %q and after %q: want another one", before, after)
	}
	p.terminate()
	unreadable(t, backup, after[0])
	s, _ = serving(t, durable(t, dir))
	s.shows("new")
}

// copied returns a new directory with copies of the files that match pattern in
// dir.
func copied(t *testing.T, dir, pattern string) string {
	t.Helper()
	to := t.TempDir()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("nothing to copy: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(name)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// unreadable fails the test if the segments in backup open with the master key,
// either alone or with the newer key file.
func unreadable(t *testing.T, backup, keyFile string) {
	t.Helper()
	master, err := base64.RawURLEncoding.DecodeString(testKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(backup, "*.segment"))
	for _, name := range append([]string{""}, segments...) {
		from := copied(t, backup, "*")
		if name != "" {
			name = strings.TrimSuffix(filepath.Base(name), ".segment") + ".key"
			if err := os.WriteFile(filepath.Join(from, name), key, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		j, err := journal.Open(journal.Config{Dir: from, Keys: [][]byte{master}})
		if err != nil {
			t.Fatal(err)
		}
		saved, err := j.Load(context.Background())
		j.Close()
		if name != "" && err == nil || len(saved.Entries) > 0 {
			t.Errorf("a copy of the old segment with %q opens: %d entries, %v", name, len(saved.Entries), err)
		}
	}
}

// One start changes the key, and the old key is then no longer needed.
func TestHistoryKeyIsChanged(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, dir))
	s.publisher().publish("a")
	p.terminate()
	s, p = serving(t, durable(t, dir, "HISTORY_KEY="+otherKey, "HISTORY_KEY_PREVIOUS="+testKey))
	s.shows("a")
	if len(p.stderr.Events("the history is encrypted with HISTORY_KEY: HISTORY_KEY_PREVIOUS is no longer needed")) != 1 {
		t.Errorf("the log does not report that the old key can go:\n%s", p.stderr)
	}
	p.terminate()
	s, p = serving(t, durable(t, dir, "HISTORY_KEY="+otherKey))
	s.shows("a")
	p.terminate()
	refused(t, durable(t, dir), "HISTORY_KEY does not open")
}

// refused starts a server that must not start. Its error must hold want and no
// key.
func refused(t *testing.T, env []string, want string) {
	t.Helper()
	p := launch(t, false, t.TempDir(), env)
	if code := p.wait(); code != 1 || !strings.Contains(p.stderr.String(), want) {
		t.Errorf("exit code %d, want 1, with %q:\n%s", code, want, p.stderr)
	}
	for _, key := range []string{testKey, otherKey} {
		if strings.Contains(p.stderr.String(), key) {
			t.Errorf("a key is printed:\n%s", p.stderr)
		}
	}
}

func TestHistoryRefusesToStart(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, good))
	s.publisher().publish("a", "b", "c")
	refused(t, durable(t, good), "another process uses HISTORY_DIR "+good)
	p.terminate()

	broken := copied(t, good, "*")
	segments, _ := filepath.Glob(filepath.Join(broken, "*.segment"))
	text, _ := os.ReadFile(segments[0])
	text[100] ^= 1
	if err := os.WriteFile(segments[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := func(name string, mode os.FileMode) string {
		dir := filepath.Join(t.TempDir(), name)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	volume, link := made("volume/lost+found", 0o700), filepath.Join(t.TempDir(), "link")
	volume = filepath.Dir(volume)
	if err := os.Symlink(made("target", 0o700), link); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, dir string
		more      []string
		want      string
	}{
		{"the top of a volume", volume, nil, "name a directory in it, such as " + filepath.Join(volume, "history")},
		{"any user may write to it", made("open", 0o777), nil, "any user may write to it"},
		{"a link", link, nil, "it is a link"},
		{"damaged", broken, nil, "move it away"},
		{"a file", file, nil, "cannot be used"},
		{"others' things", filepath.Dir(file), nil, "a directory of its own"},
		{"no key", good, []string{"HISTORY_KEY="}, "HISTORY_KEY is required if HISTORY_DIR is set"},
		{"a short key", good, []string{"HISTORY_KEY=" + testKey[1:]}, "43 characters"},
		{"a padded key", good, []string{"HISTORY_KEY=" + testKey + "="}, "43 characters"},
		{"another encoding of the last bits", good, []string{"HISTORY_KEY=" + testKey[:42] + "N"}, "43 characters"},
		{"a key of zeros", good, []string{"HISTORY_KEY=" + strings.Repeat("A", 43)}, "HISTORY_KEY"},
		{"a key without a directory", "", nil, "HISTORY_KEY encrypts nothing without HISTORY_DIR, LIVES_DIR or REDIS_URL"},
		{"one secret for both", good, []string{"JWT_SECRET=" + testKey}, "HISTORY_KEY must not be the same as JWT_SECRET"},
		{"the old key is malformed", good, []string{"HISTORY_KEY_PREVIOUS=x"}, "HISTORY_KEY_PREVIOUS must be"},
		{"another key", good, []string{"HISTORY_KEY=" + otherKey}, "HISTORY_KEY does not open"},
		{"a word for the sync", good, []string{"HISTORY_FSYNC=sometimes"}, "HISTORY_FSYNC"},
	} {
		t.Run(row.name, func(t *testing.T) { refused(t, durable(t, row.dir, row.more...), row.want) })
	}
	// No refused start has harmed the valid history. Its end is now cut, which
	// the server must log.
	segments, _ = filepath.Glob(filepath.Join(good, "*.segment"))
	info, err := os.Stat(segments[0])
	if err == nil {
		err = os.Truncate(segments[0], info.Size()-3)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, p = serving(t, durable(t, good))
	s.shows("a", "b", "c")
	if len(p.stderr.Events("the history's end was incomplete and is dropped")) != 1 {
		t.Errorf("a dropped end is not logged:\n%s", p.stderr)
	}
}

// A start that fails because its port is taken must not invalidate viewers'
// positions.
func TestFailedStartIsOrderly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, dir))
	viewer := s.viewer()
	s.publisher().publish("a")
	pos, _, _ := viewer.position(1)
	p.terminate()
	refused(t, durable(t, dir, "PORT="+busyPort(t)), "set HOST or PORT")
	s, _ = serving(t, durable(t, dir))
	back := s.resume(pos)
	s.publisher().publish("b")
	if _, kind, texts := back.position(1); kind != "live" || texts[0] != "b" {
		t.Errorf("got %q in a %s frame", texts, kind)
	}
}

func guideEncryptedAtRest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, dir))
	s.publisher().publish("a text to look for")
	modes := func() {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) < 3 {
			t.Fatalf("files %q, %v", names, err)
		}
		for _, name := range append(names, dir) {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[info.IsDir()]; info.Mode().Perm() != want {
				t.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), want)
			}
			if text, _ := os.ReadFile(name); strings.Contains(string(text), "look for") || strings.Contains(string(text), testDevice) {
				t.Errorf("%s can be read by anyone", name)
			}
		}
	}
	modes()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait()
	modes()
	refused(t, durable(t, dir, "HISTORY_KEY="+otherKey), "HISTORY_KEY does not open")
	s, _ = serving(t, durable(t, dir))
	s.shows("a text to look for")
}

func guideRetentionLimits(t *testing.T) {
	t.Run("count", func(t *testing.T) {
		s := start(t, func(c *config.Config) { c.HistoryKeep, c.HistoryTrimAt = 2, 3 })
		s.publisher().publish("a", "b", "c", "d")
		s.shows("c", "d")
	})
	t.Run("age", func(t *testing.T) {
		s := start(t, func(c *config.Config) { c.HistoryMaxAge = 1 })
		s.publisher().publish("a")
		testkit.Eventually(t, "too old", func() bool { return s.srv.History.Stats().Entries == 0 })
	})
	t.Run("bytes", func(t *testing.T) {
		s := start(t, func(c *config.Config) { unlimited(c); c.HistoryMaxBytes = 1 << 20 })
		fill(s, 60)
		if st := s.srv.History.Stats(); st.Bytes > 1<<20 || st.TrimmedByBytes == 0 || st.Entries == 0 {
			t.Errorf("%d bytes in %d entries, %d dropped", st.Bytes, st.Entries, st.TrimmedByBytes)
		}
	})
	t.Run("on disk", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "history")
		env := durable(t, dir, "HISTORY_KEEP=2", "HISTORY_TRIM_AT=3")
		s, p := serving(t, env)
		s.publisher().publish("a", "b", "c", "d")
		p.terminate()
		s, _ = serving(t, durable(t, dir)) // that would keep more
		s.shows("c", "d")
	})
}
