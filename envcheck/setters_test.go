package envcheck_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
)

// kinds makes a setter of each kind, with the target that it sets.
var kinds = map[string]func() (target any, into envcheck.Setter){
	"int":   func() (any, envcheck.Setter) { v := new(int); return v, envcheck.Number(v, -5, 5) },
	"int8":  func() (any, envcheck.Setter) { v := new(int8); return v, envcheck.Number(v, -128, 127) },
	"int16": func() (any, envcheck.Setter) { v := new(int16); return v, envcheck.Number(v, 0, 300) },
	"int64": func() (any, envcheck.Setter) { v := new(int64); return v, envcheck.Number(v, 1, math.MaxInt64) },
	"any int": func() (any, envcheck.Setter) {
		v := new(int64)
		return v, envcheck.Number(v, math.MinInt64, math.MaxInt64)
	},
	"int max": func() (any, envcheck.Setter) { v := new(int64); return v, envcheck.Number(v, math.MinInt64, 9) },
	"uint8":   func() (any, envcheck.Setter) { v := new(uint8); return v, envcheck.Number(v, 0, 255) },
	"uint64":  func() (any, envcheck.Setter) { v := new(uint64); return v, envcheck.Number(v, 2, math.MaxUint64) },
	"float":   func() (any, envcheck.Setter) { v := new(float64); return v, envcheck.Number(v, 0.25, 1) },
	"float32": func() (any, envcheck.Setter) { v := new(float32); return v, envcheck.Number(v, 0, math.MaxFloat32) },
	"any float": func() (any, envcheck.Setter) {
		v := new(float64)
		return v, envcheck.Number(v, math.Inf(-1), math.MaxFloat64)
	},
	"port": func() (any, envcheck.Setter) { v := new(uint16); return v, envcheck.Port(v) },
	"size": func() (any, envcheck.Setter) { v := new(int64); return v, envcheck.Bytes(v, 1<<20, math.MaxInt64) },
	"wait": func() (any, envcheck.Setter) {
		v := new(time.Duration)
		return v, envcheck.Duration(v, time.Hour, math.MaxInt64)
	},
	"date":  func() (any, envcheck.Setter) { v := new(time.Time); return v, envcheck.Time(v, time.DateOnly) },
	"time":  func() (any, envcheck.Setter) { v := new(time.Time); return v, envcheck.Time(v, time.RFC3339) },
	"enum":  func() (any, envcheck.Setter) { v := new(string); return v, envcheck.Enum(v, "a", "b") },
	"url":   func() (any, envcheck.Setter) { v := new(*url.URL); return v, envcheck.URL(v, "https", "wss") },
	"uri":   func() (any, envcheck.Setter) { v := new(*url.URL); return v, envcheck.URL(v) },
	"host":  func() (any, envcheck.Setter) { v := new(string); return v, envcheck.HostPort(v) },
	"key":   func() (any, envcheck.Setter) { v := new([]byte); return v, envcheck.Bytes64(v, 4, 4) },
	"blob":  func() (any, envcheck.Setter) { v := new([]byte); return v, envcheck.Bytes64(v, 1, math.MaxInt) },
	"level": func() (any, envcheck.Setter) { v := new(slog.Level); return v, envcheck.TextUnmarshaler(v, "a level") },
	"big": func() (any, envcheck.Setter) {
		v := new(big.Int)
		return v, envcheck.TextUnmarshaler(v, "a whole number")
	},
	"rule":  func() (any, envcheck.Setter) { v := new(even); return v, envcheck.TextUnmarshaler(v, "a number") },
	"hosts": func() (any, envcheck.Setter) { v := new([]string); return v, envcheck.ListOf(v, envcheck.HostPort) },
	"words": func() (any, envcheck.Setter) { v := new([]string); return v, envcheck.ListOf(v, envcheck.Text) },
	"nets": func() (any, envcheck.Setter) {
		v := new([]netip.Prefix)
		return v, envcheck.ListOf(v, func(p *netip.Prefix) envcheck.Setter { return envcheck.TextUnmarshaler(p, "a prefix like 10.0.0.0/8") })
	},
	"map": func() (any, envcheck.Setter) { v := new(map[string]string); return v, envcheck.Map(v, envcheck.Text) },
	"weights": func() (any, envcheck.Setter) {
		v := new(map[string]float64)
		return v, envcheck.Map(v, func(f *float64) envcheck.Setter { return envcheck.Number(f, 0, 1) })
	},
	"lists": func() (any, envcheck.Setter) {
		v := new(map[string][]int)
		return v, envcheck.Map(v, func(l *[]int) envcheck.Setter { return envcheck.ListOf(l, envcheck.Port) })
	},
	"optional": func() (any, envcheck.Setter) { v := new(*int); return v, envcheck.Optional(v, envcheck.Port) },
	"db": func() (any, envcheck.Setter) {
		v := new(envcheck.Secret[*url.URL])
		return v, envcheck.SecretOf(v, func(u **url.URL) envcheck.Setter { return envcheck.URL(u, "postgres") })
	},
	"pins": func() (any, envcheck.Setter) {
		v := new(envcheck.Secret[[]int])
		return v, envcheck.SecretOf(v, func(l *[]int) envcheck.Setter { return envcheck.ListOf(l, envcheck.Port) })
	},
}

// even reads an even number, and says so.
type even int

func (e *even) UnmarshalText(text []byte) error {
	if n := len(text); n == 0 || (text[n-1]-'0')%2 != 0 {
		return envcheck.CheckReason("must be even")
	}
	*e = 2
	return nil
}

func TestKinds(t *testing.T) {
	parsed := func(s string) *url.URL { u, _ := url.Parse(s); return u }
	seven := 7
	for _, row := range []struct {
		kind, value string
		want        any    // nil if the value is refused
		says        string // the error after the name
		why         string
	}{
		{"int", "-5", -5, "", "the bounds count"},
		{"int", "6", nil, "must be a whole number from -5 to 5", "above"},
		{"int", "+5", nil, "must be a whole number from -5 to 5", "a sign that says nothing"},
		{"int", "1.0", nil, "must be a whole number from -5 to 5", "a fraction"},
		{"int8", "-128", int8(-128), "", "the least"},
		{"int8", "128", nil, "must be a whole number from -128 to 127", "wraps around"},
		{"int16", "65536", nil, "must be a whole number from 0 to 300", "wraps around to 0"},
		{"int64", "9223372036854775807", int64(math.MaxInt64), "", "no upper bound"},
		{"int64", "9223372036854775808", nil, "must be a whole number of 1 or more", "the type has one"},
		{"any int", "x", nil, "must be a whole number", "no bounds"},
		{"int max", "10", nil, "must be a whole number of 9 or less", "no lower bound"},
		{"uint8", "255", uint8(255), "", "the largest"},
		{"uint8", "256", nil, "must be a whole number from 0 to 255", "the bounds of a short type are bounds"},
		{"uint8", "-1", nil, "must be a whole number from 0 to 255", "negative"},
		{"uint64", "18446744073709551615", uint64(math.MaxUint64), "", "no upper bound"},
		{"uint64", "1", nil, "must be a whole number of 2 or more", "below"},
		{"float", "0.25", 0.25, "", "the bounds count"},
		{"float", "2.5e-1", 0.25, "", "with an exponent"},
		{"float", "1.1", nil, "must be a number from 0.25 to 1", "above"},
		{"float", "NaN", nil, "must be a number from 0.25 to 1", "no number"},
		{"float", "0x1p-1", nil, "must be a number from 0.25 to 1", "hexadecimal"},
		{"float", "0,5", nil, "must be a number from 0.25 to 1", "a comma"},
		{"float32", "1.5", float32(1.5), "", "no upper bound"},
		{"float32", "1e39", nil, "must be a number of 0 or more", "larger than the type"},
		{"any float", "-1e300", -1e300, "", "no bounds"},
		{"any float", "Inf", nil, "must be a number", "infinity is not typed on purpose"},
		{"any float", "1e999", nil, "must be a number", "larger than the type"},
		{"port", "65535", uint16(65535), "", "the largest"},
		{"size", "9GiB", int64(9 << 30), "", "no upper bound"},
		{"size", "1", nil, "must be a size of 1MiB or more, with the unit B, KiB, MiB or GiB", "below"},
		{"wait", "1000h", 1000 * time.Hour, "", "no upper bound"},
		{"wait", "59m", nil, "must be a duration of 1h or more, like 90s or 1h30m (a day is 24h)", "1h, not 1h0m0s"},
		{"date", "2026-11-26", time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC), "", "a date"},
		{"date", "26.11.2026", nil, "must be a time like 2026-01-31", "another form"},
		{"time", "2026-11-26T01:02:03Z", time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC), "", "with its time"},
		{"time", "2026-11-26", nil, "must be a time like 2026-01-31T18:30:00Z", "without"},
		{"enum", "b", "b", "", "a word"},
		{"enum", "B", nil, "must be a or b", "in capitals"},
		{"url", "https://host/p?q#f", parsed("https://host/p?q#f"), "", "a whole URL"},
		{"url", "WSS://host", parsed("WSS://host"), "", "a scheme in capitals"},
		{"url", "http://host", nil, "must be a URL that begins with https:// or wss:// and has a host", "another scheme"},
		{"url", "https:///path", nil, "must be a URL that begins with https:// or wss:// and has a host", "no host"},
		{"url", "https://:443/", nil, "must be a URL that begins with https:// or wss:// and has a host", "only a port"},
		{"url", "host.example", nil, "must be a URL that begins with https:// or wss:// and has a host", "no scheme"},
		{"url", "https://ho st/", nil, "must be a URL that begins with https:// or wss:// and has a host", "a space"},
		{"url", "https://host/a b", nil, "must be a URL that begins with https:// or wss:// and has a host", "a space in the path"},
		{"url", "https://u:hunter2@host/", nil, "must not have a user or a password in it, since it is not treated as a secret", "its String would show it"},
		{"url", "https://token@host/", nil, "must not have a user or a password in it, since it is not treated as a secret", "a token as the user"},
		{"uri", "redis://host:6379/0", parsed("redis://host:6379/0"), "", "any scheme"},
		{"uri", "//host", nil, "must be a URL with a scheme and a host", "none"},
		{"host", "db.example:5432", "db.example:5432", "", "a name"},
		{"host", "[2001:db8::1]:80", "[2001:db8::1]:80", "", "an address"},
		{"host", "my_db:1", "my_db:1", "", "names in compose files have underscores"},
		{"host", "2001:db8::1:80", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "no brackets"},
		{"host", ":80", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "every address"},
		{"host", "h:0", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "port 0"},
		{"host", "h:http", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "a name of a port"},
		{"host", "1.2.3:80", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "no whole address"},
		{"host", "http://h:80", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "a URL"},
		{"host", "a..b:80", nil, "must be an address like host.example:8080, with a port from 1 to 65535", "an empty label"},
		{"key", "AAEC/w==", []byte{0, 1, 2, 255}, "", "standard"},
		{"key", "AAEC_w", []byte{0, 1, 2, 255}, "", "URL-safe, without padding"},
		{"key", "AAEC/w=", nil, "must be 4 bytes in base64", "half of the padding"},
		{"key", "AAEC/w====", nil, "must be 4 bytes in base64", "too much padding"},
		{"key", "AAEC/x==", nil, "must be 4 bytes in base64", "bits behind the last byte"},
		{"key", "AAEC", nil, "must be 4 bytes in base64", "too short"},
		{"key", "AA\nEC/w==", nil, "must be 4 bytes in base64", "a line end inside, which Go's decoder skips"},
		{"key", "+_AA/w==", nil, "must be 4 bytes in base64", "of both alphabets"},
		{"blob", "=", nil, "must be 1 bytes or more in base64", "nothing"},
		{"level", "warn+1", slog.LevelWarn + 1, "", "as its own method reads it"},
		{"level", "hunter2", nil, "must be a level", "its error quotes the value"},
		{"big", "123456789012345678901234567890", nil, "", "a type that is not copied by hand"},
		{"rule", "7", nil, "must be even", "its reason may be shown"},
		{"hosts", "a:1, b:2", []string{"a:1", "b:2"}, "", "spaces are dropped"},
		{"hosts", "a:1,b", nil, "item 2 must be an address like host.example:8080, with a port from 1 to 65535", "the place of the wrong one"},
		{"hosts", "a:1,,b:2", nil, "item 2 is empty", "an empty one"},
		{"hosts", "a:1,b:2,a:1", nil, "item 3 repeats item 1", "twice"},
		{"words", "a", []string{"a"}, "", "one"},
		{"nets", "10.0.0.0/8,::/0", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}, "", "any type"},
		{"nets", "10.0.0.0", nil, "item 1 must be a prefix like 10.0.0.0/8", "without its length"},
		{"map", "a=1, b=x=y", map[string]string{"a": "1", "b": "x=y"}, "", "the first = counts"},
		{"map", " a = 1 ,b= 2", map[string]string{"a": "1", "b": "2"}, "", "spaces"},
		{"map", "a=1,b", nil, "pair 2 must have the form KEY=VALUE", "no value"},
		{"map", "=1", nil, "pair 1 must have the form KEY=VALUE", "no key"},
		{"map", "a=", nil, "pair 1 must have the form KEY=VALUE", "an empty value"},
		{"map", "a=1,a=2", nil, "pair 2 repeats pair 1", "a key twice"},
		{"weights", "a=0.5,b=1", map[string]float64{"a": 0.5, "b": 1}, "", "values of any type"},
		{"weights", "a=0.5,b=2", nil, "the value of pair 2 must be a number from 0 to 1", "a wrong one"},
		{"lists", "a=1", map[string][]int{"a": {1}}, "", "lists of maps"},
		{"lists", "a=x", nil, "the value of pair 1 item 1 must be a TCP port, 1 to 65535", "and their problems"},
		{"optional", "7", &seven, "", "a pointer to it"},
		{"optional", "x", nil, "must be a TCP port, 1 to 65535", "as its type says"},
		{"db", "postgres://u:hunter2@h/db", envcheck.NewSecret(parsed("postgres://u:hunter2@h/db")), "", "a secret may have a password"},
		{"db", "mysql://u:hunter2@h/db", nil, "must be a URL that begins with postgres:// and has a host", "and shows nothing of it"},
		{"pins", "1234,0", nil, "item 2 must be a TCP port, 1 to 65535", "a list of secrets"},
	} {
		target, into := kinds[row.kind]()
		err := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: into}}}.Load(env("A", row.value))
		if row.says != "" {
			if err == nil || err.Error() != "envcheck: A "+row.says {
				t.Errorf("%s (%s): %q: got %v, want %s", row.kind, row.why, row.value, err, row.says)
			}
			if fresh, _ := kinds[row.kind](); !reflect.DeepEqual(target, fresh) {
				t.Errorf("%s (%s): the target was set", row.kind, row.why)
			}
			continue
		}
		got := reflect.ValueOf(target).Elem().Interface()
		if s, ok := got.(envcheck.Secret[*url.URL]); ok {
			got, row.want = s.Reveal(), row.want.(envcheck.Secret[*url.URL]).Reveal()
		}
		if b, ok := target.(*big.Int); ok {
			if b.String() != row.value {
				t.Errorf("%s: got %v", row.kind, b)
			}
			got = row.want
		}
		if u, ok := row.want.(*url.URL); ok && err == nil {
			got, row.want = got.(*url.URL).String(), u.String()
		}
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s (%s): %q: got %v, %v, want %v", row.kind, row.why, row.value, got, err, row.want)
		}
	}
}

// A target whose variable is not set keeps its value, so nil means "not set".
func TestOptionalTellsZeroFromUnset(t *testing.T) {
	var n *int
	s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: envcheck.Optional(&n, func(n *int) envcheck.Setter { return envcheck.Number(n, 0, 9) })}}}
	if err := s.Load(env()); err != nil || n != nil {
		t.Errorf("unset: %v, %v", n, err)
	}
	if err := s.Load(env("A", "0")); err != nil || n == nil || *n != 0 {
		t.Errorf("zero: %v, %v", n, err)
	}
	var list []string
	var pairs map[string]string
	s.Vars = []envcheck.Var{{Name: "A", AllowEmpty: true, Into: envcheck.ListOf(&list, envcheck.Text)}, {Name: "B", AllowEmpty: true, Into: envcheck.Map(&pairs, envcheck.Text)}}
	if err := s.Load(env("A", "", "B", "")); err != nil || len(list) != 0 || len(pairs) != 0 {
		t.Errorf("an empty value is no items: %v, %v, %v", list, pairs, err)
	}
}

// The empty value that AllowEmpty admits is the zero value of every kind.
func TestAllowEmptyOfEveryKind(t *testing.T) {
	for name, kind := range kinds {
		target, into := kind()
		if err := (envcheck.Spec{Vars: []envcheck.Var{{Name: "A", AllowEmpty: true, Into: into}}}).Load(env("A", "")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.ValueOf(target).Elem().IsZero() && !strings.HasPrefix(fmt.Sprintf("%T", target), "*envcheck.Secret") {
			t.Errorf("%s: %v", name, target)
		}
	}
}

// A File is looked for when Load runs, not when the Spec is checked.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ value, says, why string }{
		{path, "", "an empty file can be read"},
		{dir, "names a directory, not a file", "a directory"},
		{path + "x", "names a file that does not exist", "misspelt"},
		{os.DevNull, "does not name a regular file", "a device"},
	} {
		var got string
		spec := envcheck.Spec{Vars: []envcheck.Var{{Name: "CERT", Default: filepath.Join(dir, "none"), Into: envcheck.File(&got)}}}
		err := spec.Load(env("CERT", row.value))
		if row.says == "" && (err != nil || got != row.value) || row.says != "" && (err == nil || err.Error() != "envcheck: CERT "+row.says) {
			t.Errorf("%s: %q, %v, want %q", row.why, got, err, row.says)
		}
		if err := spec.Load(env()); err == nil || err.Error() != "envcheck: CERT names a file that does not exist" {
			t.Errorf("a default that does not exist is a problem of the machine, not of the Spec: %v", err)
		}
	}
}

// No kind quotes a value, and the documents show its range.
func TestKindsAreDocumentedAndQuoteNothing(t *testing.T) {
	const marker = "s3nsitive"
	for name, kind := range kinds {
		_, into := kind()
		s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: into}}}
		for _, value := range []string{marker, marker + ",", marker + "=" + marker, "https://" + marker + ":" + marker + "@h", base64.StdEncoding.EncodeToString([]byte(marker)) + marker} {
			if err := s.Check(env("A", value)); err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), marker) {
				t.Errorf("%s: %v", name, err)
			}
		}
		var doc bytes.Buffer
		if err := s.WriteExample(&doc); err != nil {
			t.Fatal(err)
		}
		if text := doc.String(); strings.Contains(text, "775807") || strings.Contains(text, "0m0s") || strings.Contains(text, "e+") || !strings.HasPrefix(text, "# Optional: ") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestBadSetters(t *testing.T) {
	var n int
	var f float64
	var s string
	var b []byte
	var list []int
	for why, into := range map[string]envcheck.Setter{
		"crossed bounds":           envcheck.Number(&n, 2, 1),
		"no number is a bound":     envcheck.Number(&f, math.NaN(), 1),
		"crossed sizes":            envcheck.Bytes(&n, 2, 1),
		"crossed lengths":          envcheck.Bytes64(&b, 2, 1),
		"no words":                 envcheck.Enum(&s),
		"of a list":                envcheck.ListOf(&list, func(n *int) envcheck.Setter { return envcheck.Number(n, 2, 1) }),
		"a list of nothing to set": envcheck.ListOf(&list, func(n *int) envcheck.Setter { return envcheck.Setter{} }),
	} {
		err := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: into}}}.Load(env("A", "1"))
		if err == nil || !strings.HasPrefix(err.Error(), `envcheck: Spec.Vars["A"].Into is malformed: `) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// No text makes a kind panic, and no error quotes a text.
func FuzzKinds(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "1e9", "a=1,b=2", "https://u:p@h/", "AAEC/w==", "[::1]:80", "1h", "5MiB", "2026-11-26", ",", "=", "\x00", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for name, kind := range kinds {
			_, into := kind()
			s := envcheck.Spec{Vars: []envcheck.Var{{Name: "A", Into: into}}}
			if err := s.Load(env("A", value)); err != nil && len(value) > 12 && strings.Contains(err.Error(), value) {
				t.Errorf("%s quotes %q: %v", name, value, err)
			}
		}
	})
}
