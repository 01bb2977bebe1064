package envcheck_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
)

// odd is a secret that every encoder escapes.
const odd = "p@ss\"w/ö<\\ 9+z"

// traveller holds a secret where only some printers look.
type traveller struct {
	Name   string
	hidden string
	Data   []byte
	Next   *traveller `json:",omitempty"`
	Pairs  map[string][]any
}

type stringerOf struct{ s string }

func (s stringerOf) String() string { return "<" + s.s + ">" }

type marshalerOf struct{ s string }

func (m marshalerOf) MarshalJSON() ([]byte, error) { return json.Marshal(m.s) }
func (m marshalerOf) String() string               { return "nothing to see" }

type failing struct{ secret string }

func (f *failing) Error() string                { return "login failed for " + f.secret }
func (f *failing) MarshalText() ([]byte, error) { return nil, errors.New(f.secret) }

// coded shows its text to some handlers only: others print it by Format.
type coded struct{ secret string }

func (c coded) Error() string              { return "login failed for " + c.secret }
func (c coded) Format(f fmt.State, _ rune) { io.WriteString(f, "code 7") }

// texted shows another text to JSON than to other encoders.
type texted struct{ secret string }

func (t texted) MarshalText() ([]byte, error) { return []byte(t.secret), nil }
func (t texted) MarshalJSON() ([]byte, error) { return []byte("7"), nil }
func (t texted) String() string               { return "7" }

type panicking struct{ secret string }

func (p panicking) MarshalJSON() ([]byte, error) { panic(p.secret) }

type resolving struct{ v any }

func (r resolving) LogValue() slog.Value { return slog.AnyValue(r.v) }

func asJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// holders returns values that show the secret in some form.
func holders(secret string) map[string]any {
	wrapped := fmt.Errorf("dial: %w", &url.Error{Op: "Get", URL: "https://h/?k=" + url.QueryEscape(secret), Err: errors.New(secret)})
	return map[string]any{
		"string": secret, "within": "before " + secret + " behind", "error": wrapped, "errors": errors.Join(errors.New("x"), wrapped),
		"own error": &failing{secret}, "bytes": []byte("Bearer " + secret), "raw": json.RawMessage(`{"a":"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"}`),
		"struct": traveller{Name: secret}, "hidden": traveller{hidden: secret}, "pointer": &traveller{Next: &traveller{Name: secret}},
		"data": traveller{Data: []byte(secret)}, "part of data": []any{traveller{Data: []byte("a" + secret)}},
		"map": map[string]any{"a": []string{"x", secret}}, "key": map[string]int{secret: 1}, "nested": traveller{Pairs: map[string][]any{"a": {1, []byte(secret)}}},
		"stringer": stringerOf{secret}, "marshaler": marshalerOf{secret}, "resolved": resolving{traveller{Name: secret}}, "twice": resolving{resolving{errors.New(secret)}},
		"url": &url.URL{Scheme: "https", User: url.UserPassword("u", secret), Host: "h", Path: "/"}, "query": url.Values{"k": {secret}},
		"group": slog.GroupValue(slog.String("a", secret), slog.Group("b", slog.Any("c", traveller{Name: secret}))),
		"hex":   hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret)), "quoted": fmt.Sprintf("%q", secret),
		"attr": slog.String(secret, "x"), "attrs": []slog.Attr{slog.String("a", secret)}, "header": map[string][]string{"Authorization": {"Bearer " + secret}},
		"panic": panicking{secret}, "coded": coded{secret}, "texted": texted{secret}, "bytes of JSON": []byte(`{"a":` + asJSON(secret) + `}`),
		"headers": []fmt.Stringer{stringerOf{secret}},
	}
}

// forms are texts in which some printer shows the whole secret.
func forms(secret string) []string {
	escaped, _ := json.Marshal(secret)
	return []string{secret, strings.Trim(fmt.Sprintf("%q", secret), `"`), strings.Trim(string(escaped), `"`), url.QueryEscape(secret),
		hex.EncodeToString([]byte(secret)), base64.RawStdEncoding.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprint([]byte(secret)), "[]")}
}

// handlers are those of the standard library, and one that prints what it gets
// in other ways.
var handlers = map[string]func(io.Writer) slog.Handler{
	"text": func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	},
	"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	"fmt":  func(w io.Writer) slog.Handler { return &printing{w: w} },
}

type printing struct {
	w     io.Writer
	attrs []slog.Attr
}

func (h *printing) Enabled(context.Context, slog.Level) bool { return true }
func (h *printing) Handle(_ context.Context, r slog.Record) error {
	fmt.Fprintf(h.w, "%s %+v\n", r.Message, h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(h.w, "%v %s %+v %q\n", a, a.Value, a.Value.Any(), a.Value)
		return true
	})
	return nil
}
func (h *printing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &printing{h.w, append(h.attrs, attrs...)}
}
func (h *printing) WithGroup(name string) slog.Handler {
	return h.WithAttrs([]slog.Attr{slog.String("group", name)})
}

func TestHandlerBlanksSecrets(t *testing.T) {
	for _, secret := range []string{key, odd, "hunter2hunter2", "line one of the key\nline two of the key"} {
		for name, open := range handlers {
			for held, v := range holders(secret) {
				var r envcheck.Redactor
				r.Add("another-secret", secret)
				var buf bytes.Buffer
				log := slog.New(r.Handler(open(&buf)))
				log.Info("message", "v", v)
				log.Info("with "+secret, secret, 1, slog.Group("g "+secret, "v", v, "list", []any{v}))
				log.With("v", v, secret, secret).WithGroup(secret).Warn("a", "w", "x")
				for _, form := range forms(secret) {
					if strings.Contains(buf.String(), form) {
						t.Errorf("%s handler, %s: %q shows in\n%s", name, held, form, buf.String())
						break
					}
				}
				if n := strings.Count(buf.String(), "[redacted]"); n < 3 {
					t.Errorf("%s handler, %s: %d blanks\n%s", name, held, n, buf.String())
				}
			}
		}
	}
}

// Without a Redactor, every holder shows the secret through some handler.
// Otherwise the test above would show nothing.
func TestHoldersShowSecrets(t *testing.T) {
	for held, v := range holders(key) {
		var buf bytes.Buffer
		for _, open := range handlers {
			slog.New(open(&buf)).Info("message", "v", v)
		}
		if !slices.ContainsFunc(forms(key), func(form string) bool { return strings.Contains(buf.String(), form) }) {
			t.Errorf("%s: %s", held, buf.String())
		}
	}
}

// What holds no secret goes to the next handler as it is.
func TestHandlerKeepsTheRest(t *testing.T) {
	var r envcheck.Redactor
	r.Add(key)
	kept := errors.New("kept")
	var got []any
	next := recording(func(v slog.Value) { got = append(got, v.Any()) })
	pointer := &traveller{Name: "x"}
	log := slog.New(r.Handler(next))
	log.Info("x", "e", kept, "p", pointer, "n", 12345, "nil", nil, "v", resolving{"y"})
	want := []any{kept, pointer, int64(12345), nil, "y"}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	got = nil
	log.Info("x", "e", fmt.Errorf("a %s b", key))
	if err, ok := got[0].(error); !ok || err.Error() != "a [redacted] b" {
		t.Errorf("an error stays one: %#v", got[0])
	}

	r.Add(odd)
	got = nil
	log.Info("x", "b", []byte(asJSON(odd)), "nil", (*failing)(nil))
	if fmt.Sprint(got[0]) != `"[redacted]"` || got[1] != any((*failing)(nil)) {
		t.Errorf("bytes that quote a secret, and nil: %q", got)
	}

	if log.Handler().Enabled(t.Context(), slog.LevelDebug) {
		t.Error("the level of the next handler is lost")
	}
	var none envcheck.Redactor
	got = nil
	slog.New(none.Handler(next)).With("a", 1).WithGroup("g").Info("x", "e", kept)
	if none.Redact(key) != key || len(got) != 1 || got[0] != any(kept) {
		t.Error("a Redactor without secrets changes something")
	}
}

type recording func(slog.Value)

func (f recording) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (f recording) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool { f(a.Value); return true })
	return nil
}
func (f recording) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f recording) WithGroup(string) slog.Handler      { return f }

func TestRedact(t *testing.T) {
	pem := "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0B\nshort\n-----END KEY-----\n"
	for _, row := range []struct{ secret, text, want, why string }{
		{"hunter2", "a hunter2, hunter2hunter2", "a [redacted], [redacted][redacted]", "wherever it is"},
		{"hunter2", "Hunter2", "Hunter2", "only as it is"},
		{"abc", "abc", "abc", "too short to be told from other text"},
		{"", "abc", "abc", "none"},
		{"1234", "pin 1234", "pin [redacted]", "the shortest"},
		{"postgres://u:s3cr%40t@h/db", "for u: s3cr@t or s3cr%40t", "for u: [redacted] or [redacted]", "the password of a URL, decoded or not"},
		{pem, "bad line MIIBVgIBADANBgkqhkiG9w0B of short", "bad line [redacted] of short", "a line of several"},
		{pem, fmt.Sprintf("%q", pem), `"[redacted]"`, "all of them, escaped"},
	} {
		var r envcheck.Redactor
		r.Add(row.secret)
		if got := r.Redact(row.text); got != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
	}
	var r envcheck.Redactor
	r.Add("hunter2")
	r.Add("hunter2hunter2", "12345678")
	if got := r.Redact("hunter2hunter2x hunter2"); got != "[redacted]x [redacted]" {
		t.Errorf("the longer one goes first: %q", got)
	}
	var buf bytes.Buffer
	slog.New(r.Handler(slog.NewTextHandler(&buf, nil))).Info("x", "n", 12345678, "m", uint64(912345678), "f", 12345678.5, "k", 87654321)
	if text := buf.String(); strings.Contains(text, "12345678") || !strings.Contains(text, "87654321") {
		t.Errorf("numbers: %s", text)
	}
}

// describing is a value that refers to itself, and prints itself all the same.
type describing struct{ m map[string]any }

func (d describing) String() string { return "hunter2" }

// A value that contains itself does not end the process, although fmt would
// follow it until the stack is full.
func TestHandlerStopsAtLoops(t *testing.T) {
	loop := map[string]any{}
	loop["self"] = []any{loop}
	list := make([]any, 1)
	list[0] = list
	type holder struct {
		Func func() // of which JSON can say nothing
		Loop any
	}
	shared := map[string]any{"a": 1}
	for _, row := range []struct {
		why   string
		v     any
		loops bool
	}{
		{"a map", loop, true}, {"a list", list, true}, {"in what JSON refuses", holder{Loop: loop}, true}, {"behind a pointer", &holder{Loop: list}, true},
		{"as an item", [1]holder{{Loop: loop}}, true}, {"what is shared", []any{shared, shared, []int{}, []int{}}, false}, {"what prints itself", describing{loop}, false},
		{"below what prints itself", []any{describing{loop}}, false},
	} {
		var r envcheck.Redactor
		r.Add("hunter2")
		var buf bytes.Buffer
		slog.New(r.Handler(slog.NewJSONHandler(&buf, nil))).Info("x", "v", row.v)
		if strings.Contains(buf.String(), "contains itself") != row.loops || strings.Contains(buf.String(), "hunter2") {
			t.Errorf("%s: %s", row.why, buf.String())
		}
	}
}

// Load registers every secret that it reads, also if it fails, and nothing
// else.
func TestLoadRegistersSecrets(t *testing.T) {
	file := t.TempDir() + "/secret"
	if err := os.WriteFile(file, []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"80", "not-a-port"} {
		var r envcheck.Redactor
		var n int
		var list envcheck.Secret[[]string]
		s := envcheck.Spec{Redactor: &r, Vars: []envcheck.Var{
			{Name: "A", Secret: true}, {Name: "B", Into: envcheck.SecretOf(&list, func(l *[]string) envcheck.Setter { return envcheck.ListOf(l, envcheck.Text) })},
			{Name: "C", Secret: true}, {Name: "D", Into: envcheck.Port(&n)}, {Name: "E"},
		}}
		err := s.Load(env("A", "from-the-environment", "B", "x,", "C_FILE", file, "D", port, "E", "no-secret"))
		if err == nil {
			t.Fatal("B is wrong")
		}
		got := r.Redact("from-the-environment from-a-file no-secret 80 not-a-port")
		if got != "[redacted] [redacted] no-secret 80 not-a-port" {
			t.Errorf("D is %s: %s", port, got)
		}
	}
}

// A list of secrets is seldom logged as a whole: each item is a secret too.
func TestLoadRegistersParts(t *testing.T) {
	type setter = envcheck.Setter
	bytes64 := func(b *[]byte) setter { return envcheck.Bytes64(b, 1, 64) }
	var list []string
	var secrets []envcheck.Secret[string]
	var whole envcheck.Secret[map[string]string]
	var binary envcheck.Secret[[]byte]
	var keys map[string][]byte
	var optional *[]string
	for _, row := range []struct {
		why, value string
		v          envcheck.Var
		text       string // in which nothing may be left but the spaces
	}{
		{"a list", "first-key, second-key", envcheck.Var{Secret: true, Into: envcheck.ListOf(&list, envcheck.Text)}, "first-key second-key"},
		{"a list of secrets", "first-key,second-key", envcheck.Var{Into: envcheck.ListOf(&secrets, func(s *envcheck.Secret[string]) setter { return envcheck.SecretOf(s, envcheck.Text) })}, "second-key first-key"},
		{"a secret map", "eu=first=key,us=second-key", envcheck.Var{Into: envcheck.SecretOf(&whole, func(m *map[string]string) setter { return envcheck.Map(m, envcheck.Text) })}, "first=key second-key"},
		{"bytes", "MDEyMzQ1Njc4OQ==", envcheck.Var{Into: envcheck.SecretOf(&binary, bytes64)}, "MDEyMzQ1Njc4OQ 0123456789 30313233343536373839"},
		{"bytes in a map", "a=MDEyMzQ1Njc4OQ==", envcheck.Var{Secret: true, Into: envcheck.Map(&keys, bytes64)}, "MDEyMzQ1Njc4OQ 0123456789"},
		{"an optional list", "first-key,second-key", envcheck.Var{Secret: true, Into: envcheck.Optional(&optional, func(l *[]string) setter { return envcheck.ListOf(l, envcheck.Text) })}, "second-key"},
		{"URLs with passwords", "https://u:s3cr3t-1@h,https://u:s3cr3t-2@h", envcheck.Var{Secret: true, Into: envcheck.ListOf(&list, envcheck.Text)}, "s3cr3t-1 s3cr3t-2"},
	} {
		var r envcheck.Redactor
		row.v.Name = "A"
		s := envcheck.Spec{Redactor: &r, Vars: []envcheck.Var{row.v}}
		if err := s.Load(env("A", row.value)); err != nil {
			t.Fatal(row.why, err)
		}
		if got := r.Redact(row.text); strings.Trim(strings.ReplaceAll(got, "[redacted]", ""), " =") != "" {
			t.Errorf("%s: %q", row.why, got)
		}
	}
}

// Secrets can be added while others log.
func TestRedactorIsConcurrent(t *testing.T) {
	var r envcheck.Redactor
	log := slog.New(r.Handler(slog.NewTextHandler(io.Discard, nil)))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				secret := fmt.Sprintf("secret-%d-%d", i, j)
				r.Add(secret)
				if text := r.Redact(secret); text != "[redacted]" {
					t.Errorf("%q", text)
				}
				log.Info("x", "v", secret)
			}
		})
	}
	wg.Wait()
}

func FuzzRedact(f *testing.F) {
	f.Add("hunter2", "a", "b")
	f.Add(odd, "\x00", "\xff")
	f.Fuzz(func(t *testing.T, secret, before, behind string) {
		var r envcheck.Redactor
		r.Add(secret)
		if len(secret) < 4 || strings.ContainsAny(secret, "[]") {
			return // too short, or spelled by a blank and the text beside it
		}
		if text := r.Redact(before + secret + behind); strings.Contains(text, secret) && !strings.Contains("[redacted]", secret) {
			t.Errorf("%q shows in %q", secret, text)
		}
	})
}
