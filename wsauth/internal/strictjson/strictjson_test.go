package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

func TestMembers(t *testing.T) {
	m := strictjson.Read([]byte(` { "a" : [1, {"b":2}] ,"\u0061":"\"}", "a":-1.5e+3 } `))
	var got []string
	for m.Next() {
		got = append(got, string(m.Name())+"="+string(m.Value()))
	}
	want := `"a"=[1, {"b":2}] "\u0061"="\"}" "a"=-1.5e+3`
	if m.Err != nil || strings.Join(got, " ") != want || m.Next() {
		t.Errorf("%s, %v", got, m.Err)
	}
}

func TestDepth(t *testing.T) {
	for _, pair := range []string{"[]", "{}"} {
		open, end := pair[:1], pair[1:]
		if open == "{" {
			open = `{"a":`
		}
		nest := func(n int) []byte {
			return []byte(strings.Repeat(open, n-1) + pair + strings.Repeat(end, n-1))
		}
		if err := strictjson.Check(nest(strictjson.MaxDepth)); err != nil {
			t.Errorf("%s: %v", pair, err)
		}
		if err := strictjson.Check(nest(strictjson.MaxDepth + 1)); !errors.Is(err, strictjson.ErrDepth) {
			t.Errorf("%s: %v", pair, err)
		}
	}
}

func TestInt(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "7": 7, "-7": -7, "9223372036854775807": 1<<63 - 1} {
		if got, ok := strictjson.Int([]byte(in)); !ok || got != want {
			t.Errorf("%s: %d %t", in, got, ok)
		}
	}
	for _, in := range []string{"", "-", "-0", "01", "1.0", "1e3", "+1", `"1"`, "null", "9223372036854775808"} {
		if got, ok := strictjson.Int([]byte(in)); ok {
			t.Errorf("%s: %d", in, got)
		}
	}
}

// encoding/json accepts the same values, except for depth and UTF-8, and
// decodes the same strings.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e-3,"\ud83d\ude00",null,true]}`, `[`, `"\u00"`, `-`, `{"a"}`, "\"\x01\"", ` [ ] `, `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := strictjson.Check(data)
		if want := json.Valid(data) && utf8.Valid(data); (err == nil) != want && !errors.Is(err, strictjson.ErrDepth) {
			t.Fatalf("%q: %v, want valid %t", data, err, want)
		}
		var text string
		if err != nil || json.Unmarshal(data, &text) != nil || len(data) == 0 || data[0] != '"' || data[len(data)-1] != '"' {
			return
		}
		got, ok := strictjson.String(data)
		if ok && got != text || !ok && !strings.Contains(text, "\ufffd") {
			t.Fatalf("%q: %q %t, want %q", data, got, ok, text)
		}
		if strictjson.Is(data, text) != ok {
			t.Fatalf("Is disagrees with String about %q", data)
		}
	})
}
