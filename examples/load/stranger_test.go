//go:build unix

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestStrangers gives load hostile flags and hostile servers. It prints no
// character that controls a terminal.
func TestStrangers(t *testing.T) {
	const evil = "\x1b]52;c;eA\x07\x1b[2J\r\u009b2J\x7f\u202e\u2066\u200b\u2028\ufeff"
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 418 \x1b[2J\u009b\u202e\r\nX-A: \u009b\r\n\r\n%s", evil)
	}))
	t.Cleanup(refusing.Close)
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s\r\n%s\r\n\r\n", evil, evil)
	}))
	t.Cleanup(garbage.Close)
	answering := newFake(t)
	answering.answer = `{"error":"\u009b\u001b[2J\u202e"}`

	ws := func(url string) string { return "ws" + strings.TrimPrefix(url, "http") + "/ws" }
	few := []string{"-viewers", "2", "-sources", "0", "-for", "1s", "-wait", "1s", "-rate", "10"}
	for _, row := range []struct {
		why  string
		args []string
	}{
		{"an unknown flag", []string{"-" + evil}},
		{"an argument", []string{evil}},
		{"values", []string{"-slow", evil, "-slow-kind", evil, "-run", evil, "-url", evil}},
		{"a host name", []string{"-url", "ws://a\u009b\u202e/ws"}},
		{"another machine's host name", []string{"-url", "ws://\u202e.example/ws"}},
		{"a URL to start at", append([]string{"-url", ws(answering.URL), "-publish=false", "-start", "http://a\u202e.invalid/" + evil}, few...)},
		{"a server that refuses", append([]string{"-url", ws(refusing.URL)}, few...)},
		{"a server that refuses to start", append([]string{"-url", ws(answering.URL), "-publish=false", "-start", refusing.URL}, few...)},
		{"a server that speaks no HTTP", append([]string{"-url", ws(garbage.URL)}, few...)},
		{"a server that refuses the token", append([]string{"-url", ws(answering.URL)}, few...)},
	} {
		for _, flag := range []string{"", "-json", "-quiet"} {
			args := row.args
			if flag != "" {
				args = append([]string{flag}, args...)
			}
			var out, errs bytes.Buffer
			if code := run(t.Context(), args, "a token", &out, &errs); code == exitOK {
				t.Errorf("%s, %s: no failure", row.why, flag)
			}
			text := out.String() + errs.String()
			if text == "" || !utf8.ValidString(text) {
				t.Errorf("%s, %s: %q is printed", row.why, flag, text)
			}
			for _, r := range text {
				if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
					t.Errorf("%s, %s: %q is printed in:\n%q", row.why, flag, r, text)
					break
				}
			}
		}
	}
}
