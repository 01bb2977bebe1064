package envcheck_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
)

type inner struct{ s envcheck.Secret[string] }

// outer holds secrets in every position that printers treat differently.
type outer struct {
	Open    envcheck.Secret[string]
	hidden  envcheck.Secret[string]
	pointer *envcheck.Secret[string]
	deep    inner
	deeper  *inner
	list    []envcheck.Secret[string]
	List    []envcheck.Secret[string]
	array   [1]inner
	byName  map[string]envcheck.Secret[string]
	ByName  map[string]envcheck.Secret[string]
	any     any
	Any     any
}

func loaded(t *testing.T) (config, outer) {
	t.Helper()
	var cfg config
	if err := spec(&cfg).Load(env("JWT_SECRET", key, "DEVICES", "x")); err != nil {
		t.Fatal(err)
	}
	s := cfg.Key
	m := map[string]envcheck.Secret[string]{"k": s}
	return cfg, outer{s, s, &s, inner{s}, &inner{s}, []envcheck.Secret[string]{s}, []envcheck.Secret[string]{s}, [1]inner{{s}}, m, m, s, &s}
}

// traces returns the forms in which some encoding may show a part of the
// secret.
func traces() (list []string) {
	for i := 0; i+6 <= len(key); i++ {
		part := []byte(key[i : i+6])
		list = append(list, string(part), hex.EncodeToString(part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
			fmt.Sprintf("%#v", part)[len("[]byte{"):][:20], strings.Trim(fmt.Sprint(part), "[]"))
	}
	for i := range 3 {
		list = append(list, base64.StdEncoding.EncodeToString([]byte(key[i:]))[:20])
	}
	return list
}

func TestSecretNeverShows(t *testing.T) {
	cfg, out := loaded(t)
	marks := traces()
	check := func(how, text string) {
		t.Helper()
		for _, mark := range marks {
			if strings.Contains(text, mark) {
				t.Fatalf("%s shows it: %s", how, text)
			}
		}
	}
	values := map[string]any{
		"config": cfg, "*config": &cfg, "outer": out, "*outer": &out, "secret": cfg.Key, "*secret": &cfg.Key,
		"list": []any{cfg.Key, out}, "inner": inner{cfg.Key}, "map": map[string]any{"a": out}, "reveal": envcheck.Secret[string].String,
		"error":        fmt.Errorf("failed: %v", out),
		"secret bytes": envcheck.NewSecret([]byte(key)), "*secret bytes": &struct{ s envcheck.Secret[[]byte] }{envcheck.NewSecret([]byte(key))},
		"secret URL": envcheck.NewSecret(&url.URL{Host: key}), "secret map": []any{envcheck.NewSecret(map[string]string{key: key})},
	}
	for name, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", " ", "0", "-", "+#", "# ", "40", ".3", "-40.40", "+#040.2"} {
				check("%"+flags+string(verb)+" of "+name, fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		check("Sprintln of "+name, fmt.Sprintln(v, v))

		for handler, open := range map[string]func(io.Writer) slog.Handler{
			"text": func(w io.Writer) slog.Handler {
				return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})
			},
			"json": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		} {
			var buf bytes.Buffer
			log := slog.New(open(&buf))
			log.Info("a", "v", v)
			log.With("v", v).WithGroup("g").Warn("b", slog.Group("h", "v", v))
			log.LogAttrs(context.Background(), slog.LevelError, "c", slog.Any("v", v), slog.Any("l", []any{v}))
			check("slog "+handler+" of "+name, buf.String())
		}
		if data, err := json.MarshalIndent(v, "", " "); err == nil {
			check("json of "+name, string(data))
		}
		if data, err := xml.Marshal(v); err == nil {
			check("xml of "+name, string(data))
		}
		var buf bytes.Buffer
		gob.NewEncoder(&buf).Encode(v)
		check("gob of "+name, buf.String())
		buf.Reset()
		template.Must(template.New("").Parse(`{{.}} {{printf "%+v %x" . .}} <script>{{.}}</script>`)).Execute(&buf, v)
		check("template of "+name, buf.String())
	}
	// The test is worthless if the marks do not match a secret that is shown.
	for _, format := range []string{"%s", "%x", "%X", "% x", "%v", "%#v"} {
		found := false
		text := fmt.Sprintf(format, []byte(key))
		for _, mark := range marks {
			found = found || strings.Contains(text, mark)
		}
		if !found {
			t.Errorf("a secret shown by %s would go unseen", format)
		}
	}
}

func TestSecret(t *testing.T) {
	var zero envcheck.Secret[string]
	if zero.Reveal() != "" || !zero.IsZero() || envcheck.NewSecret("x").IsZero() {
		t.Error("the zero value is empty")
	}
	if !envcheck.NewSecret[[]byte](nil).IsZero() || envcheck.NewSecret([]byte{0}).IsZero() || !envcheck.NewSecret[*url.URL](nil).IsZero() ||
		!envcheck.NewSecret[error](nil).IsZero() || envcheck.NewSecret(7).IsZero() || new(envcheck.Secret[*url.URL]).Reveal() != nil {
		t.Error("a value of any type is empty if it is the zero value")
	}
	s := envcheck.NewSecret(key)
	if s.Reveal() != key {
		t.Error("what goes in comes out")
	}
	if v := slog.AnyValue(s).Resolve(); v.Kind() != slog.KindString {
		t.Errorf("a handler of one's own gets %v", v.Kind())
	}
	data, err := json.Marshal(map[string]any{"set": s, "unset": zero})
	if string(data) != `{"set":"[redacted]","unset":"[redacted]"}` || err != nil {
		t.Errorf("%s, %v: whether it is set does not show either", data, err)
	}
	if text := fmt.Sprintf("%v %+v %#v %q %d %s", s, s, s, s, zero, &s); text != strings.Repeat(" [redacted]", 6)[1:] {
		t.Error(text)
	}
}
