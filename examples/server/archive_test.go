package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
)

// operable returns an environment with an operator's listener, which the server
// and the verbs share.
func operable(t *testing.T, env []string) []string {
	return append(slices.Clone(env), "OPERATOR_ADDR=127.0.0.1:"+freePort(t))
}

func inMemory(t *testing.T) []string {
	return operable(t, []string{"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "RATE_LIMIT_CONNECTIONS=1000"})
}

// runVerb runs a command, which must exit with code, and returns its output.
func runVerb(t *testing.T, code int, env []string, args ...string) (stdout, stderr string) {
	t.Helper()
	p := launch(t, false, t.TempDir(), env, args...)
	select { // longer than elsewhere: a passphrase is slow to check on purpose
	case <-p.exited:
	case <-time.After(6 * testkit.Patience):
	}
	if got := p.wait(); got != code {
		t.Errorf("%q: exit code %d, want %d:\n%s", args, got, code, p.stderr)
	}
	return p.stdout.String(), p.stderr.String()
}

// agePair makes a key with the age program's own generator.
func agePair(t *testing.T) (identity, recipient string) {
	t.Helper()
	for _, program := range []string{"age", "age-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			testkit.Missing(t, "no age program: install it (on Debian: apt-get install age)")
		}
	}
	identity = filepath.Join(t.TempDir(), "key.txt")
	if out, err := exec.Command("age-keygen", "-o", identity).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("age-keygen", "-y", identity).Output()
	if err != nil {
		t.Fatal(err)
	}
	return identity, strings.TrimSpace(string(out))
}

// The age program decrypts the encrypted history of a running server, and
// another server imports an archive that the age program encrypted.
func guideExportImport(t *testing.T) {
	identity, recipient := agePair(t)
	dir := t.TempDir()
	from := inMemory(t)
	s, _ := serving(t, from)
	s.publisher().publish("one", "two <b>&", "three ✓")
	sealed, plain := filepath.Join(dir, "a.age"), filepath.Join(dir, "a.jsonl")

	runVerb(t, 0, from, "export", "-o", sealed, "-recipient", recipient)
	if info, err := os.Stat(sealed); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive: %v, %v", info, err)
	}
	if text, _ := os.ReadFile(sealed); bytes.Contains(text, []byte("three")) {
		t.Error("the archive can be read by anyone")
	}
	opened, err := exec.Command("age", "-d", "-i", identity, sealed).Output()
	if err != nil {
		t.Fatal("the age program: ", err)
	}
	if !bytes.Contains(opened, []byte("three ✓")) || bytes.Contains(opened, []byte(testDevice)) {
		t.Errorf("the archive holds:\n%s", opened)
	}
	if _, told := runVerb(t, 1, from, "export", "-o", sealed); !strings.Contains(told, "exists already") {
		t.Errorf("told %q", told)
	}
	if text, _ := os.ReadFile(sealed); !bytes.HasPrefix(text, []byte("age-encryption.org/")) {
		t.Error("a refused export has replaced the file")
	}
	runVerb(t, 0, from, "export", "-o", plain)
	runVerb(t, 0, from, "export", "-force", "-o", plain)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(plain, link); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(plain)
	if _, told := runVerb(t, 1, from, "export", "-force", "-o", link); !strings.Contains(told, "is a link") {
		t.Errorf("told %q", told)
	}
	if after, _ := os.ReadFile(plain); !bytes.Equal(before, after) {
		t.Error("an export onto a link has changed what it leads to")
	}
	ours, err := exec.Command("age", "-r", recipient, "-o", filepath.Join(dir, "b.age"), plain).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, ours)
	}

	to := inMemory(t)
	s, _ = serving(t, to)
	s.publisher().publish("old")
	viewer := s.viewer()
	viewer.texts(1)
	runVerb(t, 0, to, "import", filepath.Join(dir, "b.age"), "-identity", identity)
	if texts, kinds := viewer.texts(3); !slices.Equal(texts, []string{"one", "two <b>&", "three ✓"}) || kinds[0] != "history" {
		t.Errorf("the viewer's page got %q in %q", texts, kinds)
	}
	s.publisher().publish("four")
	s.shows("one", "two <b>&", "three ✓", "four")
	if left, _ := filepath.Glob(filepath.Join(dir, ".archive-*")); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// Both export and import read a passphrase from a file.
func TestArchiveWithPassphrase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "passphrase")
	if err := os.WriteFile(file, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := inMemory(t)
	s, _ := serving(t, env)
	s.publisher().publish("one")
	name := filepath.Join(dir, "a.age")
	runVerb(t, 0, env, "export", "-passphrase-file", file, "-o", name)
	s.publisher().publish("two")
	if _, told := runVerb(t, 1, env, "import", name); !strings.Contains(told, "encrypted") || !strings.Contains(told, "-passphrase-file") {
		t.Errorf("told %q", told)
	}
	s.shows("one", "two")
	runVerb(t, 0, env, "import", "-passphrase-file", file, name)
	s.shows("one")
}

// Without a server, the verbs work on the directory. If a server runs that
// takes no calls, the directory is locked.
func TestArchiveOffline(t *testing.T) {
	t.Parallel()
	dir, history := t.TempDir(), filepath.Join(t.TempDir(), "history")
	env := operable(t, durable(t, history))
	name := filepath.Join(dir, "a.jsonl")
	if _, told := runVerb(t, 1, env, "export", "-o", name); !strings.Contains(told, "no such file") || !strings.Contains(told, "HISTORY_DIR") {
		t.Errorf("nothing to export: printed %q", told)
	}
	s, p := serving(t, env)
	viewer := s.viewer()
	s.publisher().publish("one", "two")
	pos, _, _ := viewer.position(2)
	if _, told := runVerb(t, 1, append(env, "OPERATOR_ADDR="), "export"); !strings.Contains(told, "another process uses") {
		t.Errorf("told %q", told)
	}
	p.terminate()

	runVerb(t, 0, env, "export", "-o", name)
	out, _ := runVerb(t, 0, env, "export")
	if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), `\"two\"`) || len(text) != len(out) || strings.Contains(out, testDevice) {
		t.Errorf("exported %q and %q: %v", text, out, err)
	}
	s, p = serving(t, env)
	back := s.resume(pos)
	s.publisher().publish("three")
	if _, kind, texts := back.position(1); kind != "live" || texts[0] != "three" {
		t.Errorf("after an export, a viewer that comes back gets %q in a %s frame", texts, kind)
	}
	p.terminate()

	runVerb(t, 0, env, "import", name)
	s, p = serving(t, env)
	s.shows("one", "two")
	if _, kind, _ := s.resume(pos).position(2); kind != "history" {
		t.Errorf("after an import, a viewer that comes back gets a %s frame", kind)
	}
	p.terminate()
	runVerb(t, 0, env, "erase", "-all")
	s, _ = serving(t, env)
	s.publisher().publish("after")
	s.shows("after")

	if _, told := runVerb(t, 1, inMemory(t), "export"); !strings.Contains(told, "is the server running") {
		t.Errorf("neither a server nor a directory: printed %q", told)
	}
}

// messages returns entries as a relay stores them.
func messages(texts ...string) (entries []history.Entry) {
	for i, text := range texts {
		entries = append(entries, history.Entry{Seq: uint64(i + 1), At: time.Unix(1700000000, 0), Data: fmt.Appendf(nil, `{"text":%q,"timestamp":1700000000000}`, text)})
	}
	return entries
}

func archiveOf(t *testing.T, entries []history.Entry, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := archive.Export(context.Background(), &b, slices.Values(entries), archive.ExportConfig{Recipients: to}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The verb and the server refuse an archive that is cut, edited or something
// else. Each reports the reason, and nothing changes.
func TestImportRefuses(t *testing.T) {
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key.txt")
	if err := os.WriteFile(key, []byte(pair.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := inMemory(t)
	s, _ := serving(t, env)
	s.publisher().publish("mine")
	op := operatorOf(t, env)

	good, sealed := archiveOf(t, messages("a", "b")), archiveOf(t, messages("a", "b"), pair.Recipient())
	odd := func(data string) []byte {
		return archiveOf(t, append(messages("a"), history.Entry{Seq: 9, At: time.Unix(1700000001, 0), Data: []byte(data)}))
	}
	for _, row := range []struct {
		why  string
		file []byte
		with []string
		want string
	}{
		{"cut", good[:len(good)-10], nil, "ends too early"},
		{"edited", bytes.Replace(good, []byte(`\"b\"`), []byte(`\"c\"`), 1), nil, "changed after it was written"},
		{"foreign", []byte(`{"hello":"world"}` + "\n"), nil, "not an archive"},
		{"empty", nil, nil, "not an archive"},
		{"encrypted and cut", sealed[:len(sealed)-5], []string{"-identity", key}, "changed after it was written"},
		{"plain in place of encrypted", good, []string{"-identity", key}, "not encrypted, although"},
		{"another program's messages", odd(`hello`), nil, "not acceptable"},
		{"a message that would break every frame", odd(`{"text":"x","timestamp":1}]}{"type":"history"`), nil, "not acceptable"},
		{"a field of its own", odd(`{"text":"x","timestamp":1,"user":"ann"}`), nil, "not acceptable"},
		{"longer than a publisher may send", odd(`{"text":"` + strings.Repeat("x", 64<<10) + `","timestamp":1}`), nil, "at most 65536 bytes"},
		{"a line of 2 MB", odd(`{"text":"` + strings.Repeat("x", 2<<20) + `","timestamp":1}`), nil, "longer than allowed"},
		{"ids of a device", odd(`{"text":"x","timestamp":1}` + "\n" + `{"pi-1":["1"]}`), nil, "not acceptable"},
	} {
		t.Run(row.why, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "archive")
			if err := os.WriteFile(name, row.file, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, told := runVerb(t, 1, env, append([]string{"import", name}, row.with...)...); !strings.Contains(told, row.want) {
				t.Errorf("told %q, want %q", told, row.want)
			}
			if row.with != nil {
				return // the server gets no encrypted archives
			}
			if status, told := op.upload(bytes.NewReader(row.file)); status != 400 || !strings.Contains(told, "Nothing was changed") || !strings.Contains(told, row.want) {
				t.Errorf("the server itself answered %d %q", status, told)
			}
		})
	}
	imports := func() int {
		_, body := op.call("GET", "/audit?n=1000")
		return strings.Count(body, "POST /history/import")
	}
	before := imports()
	if status, _ := op.upload(io.MultiReader(bytes.NewReader(good[:40]), failing{})); status != 0 {
		t.Errorf("an upload that breaks off got %d", status)
	}
	testkit.Eventually(t, "the server is done with it", func() bool { return imports() == before+1 })
	s.shows("mine")
	if status, told := op.upload(bytes.NewReader(good)); status != 200 {
		t.Errorf("the valid archive got %d %q", status, told)
	}
	s.shows("a", "b")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// upload posts an archive to the server. The status is 0 if there is no answer.
func (o operated) upload(body io.Reader) (status int, text string) {
	o.t.Helper()
	req, err := http.NewRequest("POST", "http://"+o.addr+"/history/import", body)
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// An archive can be much larger than the history. Neither the verb nor the
// server refuses it for its size, or holds more than its newest part.
func TestImportOfALargeArchive(t *testing.T) {
	t.Parallel()
	const n = 1500
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%d %s", i, strings.Repeat("x", 10_000)))
	}
	file := archiveOf(t, messages(texts...))
	name := filepath.Join(t.TempDir(), "large.jsonl")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(inMemory(t), "HISTORY_KEEP=10", "HISTORY_TRIM_AT=20")
	s, _ := serving(t, env)
	if _, told := runVerb(t, 0, env, "import", name); !strings.Contains(told, "messages: 20 of 1500") {
		t.Errorf("told %q", told)
	}
	s.shows(texts[n-20:]...)
	op := operatorOf(t, env)
	before := op.metric("go_memstats_heap_sys_bytes")
	if status, told := op.upload(bytes.NewReader(file)); status != 200 || !strings.Contains(told, `"messages": 1500`) {
		t.Errorf("the whole file sent to the server got %d %q", status, told)
	}
	if grown := op.metric("go_memstats_heap_sys_bytes") - before; grown > float64(len(file)/2) {
		t.Errorf("the server's heap grew by %.0f bytes for %d", grown, len(file))
	}
	s.shows(texts[n-20:]...)
}

// An erased message, or history, is gone from pages, memory and disk. An older
// copy of the disk does not bring it back.
func guideErasure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	env := operable(t, durable(t, dir))
	s, p := serving(t, env)
	device := s.publisher()
	// A restart signal with a text is kept as a message, and it clears viewers'
	// pages.
	device.send(`{"text":"erase me","id":"r","status":{"is_restarting":true}}`)
	device.publish("b", "c")
	behind, _, _ := s.viewer().position(3)
	out, _ := runVerb(t, 0, env, "export")
	var seq string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "erase me") {
			_, seq, _ = strings.Cut(line, `"seq":`)
			seq, _, _ = strings.Cut(seq, ",")
		}
	}
	page := s.viewer()
	page.texts(3)
	backup := copied(t, dir, "*.segment")
	runVerb(t, 0, env, "erase", seq)
	if texts, kinds := page.texts(2); !slices.Equal(texts, []string{"b", "c"}) || kinds[0] != "history" {
		t.Errorf("a page that showed it got %q in %q", texts, kinds)
	}
	s.shows("b", "c")
	if _, _, texts := s.resume(behind).position(2); !slices.Equal(texts, []string{"b", "c"}) {
		t.Errorf("a viewer that comes back got %q", texts)
	}
	keys, _ := filepath.Glob(filepath.Join(dir, "*.key"))
	if len(keys) != 1 {
		t.Fatalf("keys %q", keys)
	}
	unreadable(t, backup, keys[0])
	if _, told := runVerb(t, 1, env, "erase", seq); !strings.Contains(told, "404") {
		t.Errorf("erasing it again: printed %q", told)
	}
	runVerb(t, 2, env, "erase")
	runVerb(t, 2, env, "erase", "-all", "1")
	runVerb(t, 2, env, "erase", "newest")

	backup = copied(t, dir, "*.segment")
	runVerb(t, 0, env, "erase", "-all")
	if m := page.await(func(m map[string]any) bool { return m["type"] != nil }); m["type"] != "history" || len(m["messages"].([]any)) != 0 {
		t.Errorf("a page got %v", m)
	}
	keys, _ = filepath.Glob(filepath.Join(dir, "*.key"))
	unreadable(t, backup, keys[0])
	p.terminate()
	if out, _ := runVerb(t, 0, env, "export"); strings.Contains(out, `"seq"`) {
		t.Errorf("left on disk: %s", out)
	}
}
