package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/internal/machine"
)

var (
	ctx  = context.Background()
	noon = time.Date(2026, 11, 24, 12, 0, 0, 500, time.UTC)
)

// samples are entries that are difficult for a text format.
var samples = []history.Entry{
	{Seq: 1, At: noon, Data: []byte(`{"type":"llm","content":"<b>&amp; \u2028"}`)},
	{Seq: 2, At: noon, Data: []byte("two\nlines\r\n\x00 and \"quotes\" \u2028 \ufffd 💡")},
	{Seq: 5, At: noon.In(time.FixedZone("", 3600)), Data: []byte("\xff\xfe no UTF-8 \xc3")},
	{Seq: 9, At: noon.Add(time.Hour), Data: nil},
	{Seq: 10, At: noon.Add(time.Hour), Data: []byte(`{"end":true,"entries":4}`)},
}

func export(t testing.TB, entries []history.Entry, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	done, err := archive.Export(ctx, &b, slices.Values(entries), archive.ExportConfig{Recipients: to, Exported: noon})
	if err != nil || !done.Done || done.Entries != uint64(len(entries)) {
		t.Fatal(done, err)
	}
	return b.Bytes()
}

func reason(err error) archive.Reason {
	var e *archive.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func same(t testing.TB, got, want []history.Entry) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b history.Entry) bool {
		return a.Seq == b.Seq && a.At.Equal(b.At) && bytes.Equal(a.Data, b.Data)
	}) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// cheap returns a passphrase recipient that takes much less than a second.
func cheap(t testing.TB, passphrase string) age.Recipient {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(4)
	return r
}

func TestRoundTrip(t *testing.T) {
	pair, _ := age.GenerateX25519Identity()
	other, _ := age.GenerateX25519Identity()
	open, err := archive.PassphraseIdentity("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why  string
		to   []age.Recipient
		with []age.Identity
	}{
		{"plain", nil, nil},
		{"a passphrase", []age.Recipient{cheap(t, "correct horse")}, []age.Identity{open}},
		{"one of two recipients", []age.Recipient{other.Recipient(), pair.Recipient()}, []age.Identity{pair}},
		{"one of two identities", []age.Recipient{pair.Recipient()}, []age.Identity{other, open, pair}},
	} {
		file := export(t, samples, row.to...)
		got, done, err := archive.Read(ctx, iotest.OneByteReader(bytes.NewReader(file)), archive.ImportConfig{Identities: row.with})
		if err != nil || !done.Done {
			t.Fatalf("%s: %v", row.why, err)
		}
		same(t, got, samples)
		if len(row.to) > 0 && bytes.Contains(file, []byte("relayguard")) {
			t.Errorf("%s: not encrypted", row.why)
		}
	}
}

// The format is documented, so a change of it needs a new version.
func TestFormat(t *testing.T) {
	lines := `{"format":"relayguard-history","version":1,"exported":"2026-11-24T12:00:00Z"}
{"seq":1,"at":"2026-11-24T12:00:00.0000005Z","text":"<hello>"}
{"seq":2,"at":"2026-11-24T12:00:00.0000005Z","base64":"/w=="}
`
	want := lines + fmt.Sprintf(`{"end":true,"entries":2,"sha256":"%x"}`+"\n", sha256.Sum256([]byte(lines)))
	got := export(t, []history.Entry{{Seq: 1, At: noon, Data: []byte("<hello>")}, {Seq: 2, At: noon, Data: []byte{255}}})
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An archive that was cut or changed at any byte is refused, and the log does
// not change.
func TestEveryByte(t *testing.T) {
	pair, _ := age.GenerateX25519Identity()
	l, err := history.Open(ctx, history.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l.Append(ctx, []byte("mine"))
	before := l.Position()
	for _, row := range []struct {
		why  string
		to   []age.Recipient
		with []age.Identity
	}{{"plain", nil, nil}, {"age", []age.Recipient{pair.Recipient()}, []age.Identity{pair}}} {
		file := export(t, samples, row.to...)
		refused := func(change string, at int, content []byte) {
			t.Helper()
			_, err := archive.ImportLog(ctx, l, nil, bytes.NewReader(content), archive.ImportConfig{Identities: row.with})
			if r := reason(err); r == "" || r == archive.ReasonFailed {
				t.Fatalf("%s, %s at %d: %v", row.why, change, at, err)
			}
		}
		for i := range file {
			refused("cut", i, file[:i])
			content := bytes.Clone(file)
			content[i] ^= 1 << (i % 8)
			refused("changed", i, content)
		}
		refused("appended to", len(file), append(bytes.Clone(file), '\n'))
		refused("doubled", len(file), append(bytes.Clone(file), file...))
	}
	if l.Position() != before {
		t.Error("the log has changed")
	}
}

func TestRefused(t *testing.T) {
	pair, _ := age.GenerateX25519Identity()
	other, _ := age.GenerateX25519Identity()
	mine := []age.Identity{pair}
	plain, sealed := export(t, samples), export(t, samples, pair.Recipient())
	lines := bytes.SplitAfter(plain, []byte("\n"))
	join := func(order ...int) (b []byte) {
		for _, i := range order {
			b = append(b, lines[i]...)
		}
		return b
	}
	resealed := func(text string) []byte { // with a matching trailer
		return fmt.Appendf(nil, `%s{"end":true,"entries":%d,"sha256":"%x"}`+"\n", text, strings.Count(text, "\n")-1, sha256.Sum256([]byte(text)))
	}
	const head = `{"format":"relayguard-history","version":1,"exported":"2026-11-24T12:00:00Z"}` + "\n"
	for _, row := range []struct {
		why    string
		file   []byte
		ids    []age.Identity
		reason archive.Reason
	}{
		{"nothing", nil, nil, archive.ReasonForeign},
		{"another program's JSON Lines", []byte("{\"format\":\"x\"}\n"), nil, archive.ReasonForeign},
		{"one endless line", bytes.Repeat([]byte("x"), 1<<20), nil, archive.ReasonForeign},
		{"a later version", []byte("{\"format\":\"relayguard-history\",\"version\":3,\"new\":1}\n"), nil, archive.ReasonVersion},
		{"only half", plain[:len(plain)/2], nil, archive.ReasonTruncated},
		{"a line taken out", join(0, 1, 3, 4, 5, 6), nil, archive.ReasonDamaged},
		{"lines swapped", join(0, 1, 2, 4, 3, 5, 6), nil, archive.ReasonDamaged},
		{"a line twice", join(0, 1, 1, 2, 3, 4, 5, 6), nil, archive.ReasonDamaged},
		{"no trailer", join(0, 1, 2, 3, 4, 5), nil, archive.ReasonTruncated},
		{"two archives in one", append(bytes.Clone(plain), plain...), nil, archive.ReasonDamaged},
		{"time runs backwards", resealed(head + `{"seq":1,"at":"2026-11-24T12:00:01Z","text":""}` + "\n" + `{"seq":2,"at":"2026-11-24T12:00:00Z","text":""}` + "\n"), nil, archive.ReasonDamaged},
		{"number 0", resealed(head + `{"seq":0,"at":"2026-11-24T12:00:01Z","text":""}` + "\n"), nil, archive.ReasonDamaged},
		{"two contents", resealed(head + `{"seq":1,"at":"2026-11-24T12:00:01Z","text":"","base64":""}` + "\n"), nil, archive.ReasonDamaged},
		{"no content", resealed(head + `{"seq":1,"at":"2026-11-24T12:00:01Z"}` + "\n"), nil, archive.ReasonDamaged},
		{"an unknown field", resealed(head + `{"seq":1,"at":"2026-11-24T12:00:01Z","text":"","x":1}` + "\n"), nil, archive.ReasonDamaged},
		{"finished, but of the version that cannot be", resealed(`{"format":"relayguard-history","version":1,"exported":"2026-11-24T12:00:00Z","finished":true}` + "\n"), nil, archive.ReasonDamaged},
		{"the version of a finished log, without its end", resealed(strings.Replace(head, ":1", ":2", 1)), nil, archive.ReasonDamaged},
		{"encrypted, no key", sealed, nil, archive.ReasonEncrypted},
		{"encrypted, another's key", sealed, []age.Identity{other}, archive.ReasonNoMatch},
		{"somebody put a plain one in its place", plain, mine, archive.ReasonNotEncrypted},
		{"an age file of something else", seal(t, []byte("a diary"), pair.Recipient()), mine, archive.ReasonForeign},
		{"an age header and no more", sealed[:bytes.Index(sealed, []byte("---"))], mine, archive.ReasonTruncated},
		{"half an age file", sealed[:len(sealed)-20], mine, archive.ReasonDamaged},
		{"more after an age file", append(bytes.Clone(sealed), 'x'), mine, archive.ReasonDamaged},
	} {
		_, done, err := archive.Read(ctx, bytes.NewReader(row.file), archive.ImportConfig{Identities: row.ids})
		if reason(err) != row.reason || done.Done {
			t.Errorf("%s: %v, want %q", row.why, err, row.reason)
		}
		if err != nil && strings.Contains(err.Error(), "lines") {
			t.Errorf("%s: the error quotes the content: %v", row.why, err)
		}
	}
	long := export(t, []history.Entry{{Seq: 1, At: noon, Data: make([]byte, 1000)}})
	if _, _, err := archive.Read(ctx, bytes.NewReader(long), archive.ImportConfig{MaxLine: 900}); reason(err) != archive.ReasonTooLong {
		t.Errorf("a long entry: %v", err)
	}
	odd := func(e history.Entry) error {
		if e.Seq == 5 {
			return errors.New("odd")
		}
		return nil
	}
	var unfit *archive.Error
	if got, _, err := archive.Read(ctx, bytes.NewReader(plain), archive.ImportConfig{Check: odd}); !errors.As(err, &unfit) ||
		unfit.Reason != archive.ReasonUnfit || unfit.Line != 4 || got != nil {
		t.Errorf("an entry that the caller refuses: %v", err)
	}
	ok := resealed(head + `{"seq":1,"at":"2026-11-24T12:00:01Z","text":"x"}` + "\n")
	if _, _, err := archive.Read(ctx, bytes.NewReader(ok), archive.ImportConfig{}); err != nil {
		t.Errorf("the archive from which the rows are derived: %v", err)
	}
}

func TestEmptyPassphrase(t *testing.T) {
	_, err1 := archive.PassphraseRecipient("")
	_, err2 := archive.PassphraseIdentity("")
	for _, err := range []error{err1, err2} {
		if err == nil || !strings.HasPrefix(err.Error(), "archive: ") {
			t.Errorf("got %v", err)
		}
	}
}

func seal(t testing.TB, plain []byte, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func TestMedium(t *testing.T) {
	broken := errors.New("cable pulled")
	plain := export(t, samples)
	pair, _ := age.GenerateX25519Identity()
	sealed := export(t, samples, pair.Recipient())
	for n := range sealed {
		r := io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(broken))
		if _, _, err := archive.Read(ctx, r, archive.ImportConfig{Identities: []age.Identity{pair}}); reason(err) != archive.ReasonFailed || !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := archive.Read(ended, bytes.NewReader(plain), archive.ImportConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled import: %v", err)
	}
	name := filepath.Join(t.TempDir(), "out")
	if _, err := archive.ExportFile(ended, name, slices.Values(samples), archive.ExportConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled export: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(name)); len(left) > 0 {
		t.Errorf("%v is left behind", left)
	}
	if _, err := archive.ExportFile(ctx, filepath.Join(name, "no", "dir"), slices.Values(samples), archive.ExportConfig{}); reason(err) != archive.ReasonFailed {
		t.Errorf("nowhere: %v", err)
	}
	if _, err := archive.Export(ctx, io.Discard, slices.Values(samples), archive.ExportConfig{Recipients: []age.Recipient{pair.Recipient(), cheap(t, "x")}}); reason(err) != archive.ReasonFailed {
		t.Errorf("a passphrase beside a key: %v", err)
	}
}

func many(n, size int) iter.Seq[history.Entry] {
	return func(yield func(history.Entry) bool) {
		data := bytes.Repeat([]byte("m"), size)
		for i := range n {
			if !yield(history.Entry{Seq: uint64(i + 1), At: noon, Data: data}) {
				return
			}
		}
	}
}

// The heap stays below 20 MiB while 40 MB are exported and imported.
func TestBoundedMemory(t *testing.T) {
	const n, size = 10_000, 4000
	pair, _ := age.GenerateX25519Identity()
	r, w := io.Pipe()
	var peak uint64
	var calls int
	go func() {
		_, err := archive.Export(ctx, w, many(n, size), archive.ExportConfig{Recipients: []age.Recipient{pair.Recipient()}})
		w.CloseWithError(err)
	}()
	entries, done, err := archive.Read(ctx, r, archive.ImportConfig{
		Identities: []age.Identity{pair}, Keep: 500,
		Progress: func(p archive.Progress) {
			if calls++; calls%10 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		},
	})
	if err != nil || len(entries) != 500 || entries[499].Seq != n || done.Entries != n || calls != n/100+1 {
		t.Fatalf("%d entries, %+v, %d calls, %v", len(entries), done, calls, err)
	}
	if peak > 20<<20 {
		t.Errorf("%d MB of heap", peak>>20)
	} else {
		t.Logf("%d MB of heap for %d MB of archive", peak>>20, done.Bytes>>20)
	}
	few, _, err := archive.Read(ctx, bytes.NewReader(export(t, samples)), archive.ImportConfig{MaxBytes: 60})
	if err != nil {
		t.Fatal(err)
	}
	same(t, few, samples[2:])
}

func TestImport(t *testing.T) {
	name := filepath.Join(t.TempDir(), "history.jsonl")
	for range 2 { // the second replaces the first
		if _, err := archive.ExportFile(ctx, name, slices.Values(samples), archive.ExportConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}

	l, _ := history.Open(ctx, history.Config{})
	l.Append(ctx, []byte("old"))
	viewer := l.Reader(history.Latest())
	if _, err := archive.ImportLog(ctx, l, []byte("restored"), bytes.NewReader(file), archive.ImportConfig{}); err != nil {
		t.Fatal(err)
	}
	b, _ := viewer.TryNext()
	if !b.Reset || string(b.Note) != "restored" || len(b.Entries) != len(samples) || string(b.Entries[1].Data) != string(samples[1].Data) {
		t.Errorf("a viewer sees %+v", b)
	}

	cfg := journal.Config{Dir: t.TempDir(), Keys: [][]byte{make([]byte, journal.KeySize)}}
	for round := range 2 { // into an empty journal, and over a full one
		j, err := journal.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := archive.ImportStore(ctx, j, bytes.NewReader(file[:len(file)-1]), archive.ImportConfig{}); reason(err) != archive.ReasonTruncated {
			t.Fatal(err)
		}
		if _, err := archive.ImportStore(ctx, j, bytes.NewReader(file), archive.ImportConfig{Keep: 3}); err != nil {
			t.Fatal(err)
		}
		j.Close()
		if j, err = journal.Open(cfg); err != nil {
			t.Fatal(err)
		}
		l, err := history.Open(ctx, history.Config{Store: j})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range l.Since(history.Oldest()).Entries {
			want := samples[2+i]
			if e.Seq != uint64(round*3+i+1) || !e.At.Equal(want.At) || string(e.Data) != string(want.Data) {
				t.Errorf("entry %d is %v", i, e)
			}
		}
		if l.Stats().Entries != 3 || l.Close() != nil {
			t.Errorf("%d entries", l.Stats().Entries)
		}
	}
}

// TestAgeProgram exchanges archives with the age program, if it is installed.
func TestAgeProgram(t *testing.T) {
	program, err := exec.LookPath("age")
	if err != nil {
		machine.Missing(t, "no age program: install it (on Debian: apt-get install age)")
	}
	pair, _ := age.GenerateX25519Identity()
	dir := t.TempDir()
	key := filepath.Join(dir, "key.txt")
	sealed := filepath.Join(dir, "history.age")
	os.WriteFile(key, []byte(pair.String()+"\n"), 0o600)
	if _, err := archive.ExportFile(ctx, sealed, slices.Values(samples), archive.ExportConfig{Recipients: []age.Recipient{pair.Recipient()}, Exported: noon}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-d", "-i", key, sealed).Output()
	if err != nil || !bytes.Equal(out, export(t, samples)) {
		t.Errorf("age -d: %s, %v", out, err)
	}
	for _, flags := range [][]string{{}, {"-a"}} {
		cmd := exec.Command(program, append(flags, "-r", pair.Recipient().String())...)
		cmd.Stdin = bytes.NewReader(export(t, samples))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := archive.Read(ctx, bytes.NewReader(out), archive.ImportConfig{Identities: []age.Identity{pair}})
		if err != nil {
			t.Fatalf("what age %v makes: %v", flags, err)
		}
		same(t, got, samples)
	}
}

// An armored archive, as for an e-mail or a terminal, is read too.
func TestArmor(t *testing.T) {
	pair, _ := age.GenerateX25519Identity()
	var b bytes.Buffer
	w := armor.NewWriter(&b)
	w.Write(export(t, samples, pair.Recipient()))
	w.Close()
	got, _, err := archive.Read(ctx, &b, archive.ImportConfig{Identities: []age.Identity{pair}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, samples)
}

// An archive that Read accepts is exactly what Export writes for its entries.
func FuzzReader(f *testing.F) {
	f.Add(export(f, nil))
	f.Add(export(f, samples))
	f.Add([]byte("age-encryption.org/v1\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, _, err := archive.Read(ctx, bytes.NewReader(file), archive.ImportConfig{})
		if err != nil {
			if reason(err) == "" || reason(err) == archive.ReasonFailed {
				t.Fatal(err)
			}
			return
		}
		var b bytes.Buffer
		exported, err := time.Parse(`"exported":"`+time.RFC3339+`"}`, string(file[bytes.Index(file, []byte(`"exported"`)):bytes.IndexByte(file, '\n')]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Export(ctx, &b, slices.Values(got), archive.ExportConfig{Exported: exported}); err != nil || !bytes.Equal(b.Bytes(), file) {
			t.Fatalf("%q is accepted, but written as %q: %v", file, b.Bytes(), err)
		}
	})
}
