package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/server/socket"
)

// evil has characters that control a terminal, change the direction of text or
// pose as the end of a line, in all their forms: ESC, CR, C1, DEL, overrides.
const evil = "\x1b]52;c;eA\x07\x1b[2J\r\u009b2J\x7f\u202e\u2066\u200b\u2028\ufeff"

// said are the answers of a hostile server to each verb that calls it, with
// evil in every text. The other verbs have no answer to print.
var said = map[string]string{
	"sessions": `[{"id":EVIL,"device":EVIL,"role":EVIL,"permissions":[EVIL],"addr":"fe80::1%ZONE","token_id":EVIL}]`,
	"families": `{"families":[{"id":EVIL,"device":EVIL,"role":EVIL}],"unreadable":EVIL}`,
	"revoke":   `{"device":EVIL}`,
	"keys":     `[{"signs":true}]`,
	"blocks":   `[{"prefix":"192.0.2.0/24"}]`,
	"block":    `{"prefix":"192.0.2.0/24"}`,
	"audit":    `[{"kind":EVIL,"outcome":EVIL,"addr":EVIL,"reason":EVIL,"device":EVIL,"token_id":EVIL,"key_id":EVIL,"session_id":EVIL,"detail":EVIL}]`,
	"reports":  `{"Violations":[{"Kind":EVIL,"Directive":EVIL,"Blocked":EVIL,"Page":EVIL,"Count":1}]}`,
	"import":   `{"messages":1,"kept":1}`,
	"lives":    `[{"id":EVIL,"room":EVIL,"cause":EVIL,"unreadable":true},{"id":EVIL,"cause":EVIL}]`,
	"hold":     `{"since":"2026-11-01T00:00:00Z","all":true}`,
}

// TestStrangers gives the text of strangers to every verb: a hostile server, in
// its answers and in its refusals, hostile arguments, and hostile files. No
// verb prints a character that controls the terminal.
func TestStrangers(t *testing.T) {
	quoted, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("EVIL", string(quoted), "ZONE", string(quoted[1:len(quoted)-1])).Replace
	refused := false
	var verbName string
	var asked atomic.Int64 // the calls to the operator's listener
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "operator" {
			asked.Add(1)
		}
		if refused {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte("no\n" + evil + "\nserver: all is well"))
			return
		}
		text := fill(said[verbName])
		if r.URL.Query().Has("follow") { // a line for each event
			text = strings.Trim(text, "[]") + "\n"
		}
		_, _ = w.Write([]byte(text))
	})
	hostile := httptest.NewServer(answer)
	t.Cleanup(hostile.Close)

	// On a Unix socket, the client asks for no proof.
	dir := t.TempDir()
	ln, err := socket.Listen(t.Context(), net.ListenConfig{}, "unix:"+filepath.Join(dir, "s"), socket.Owner)
	if err != nil {
		t.Fatal(err)
	}
	operator := &http.Server{Handler: answer}
	go func() { _ = operator.Serve(ln) }()
	t.Cleanup(func() { operator.Close() })
	file := filepath.Join(dir, "evil"+evil)
	if err := os.WriteFile(file, []byte("{"+evil), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(hostile.URL, "http://")
	host, port, _ := strings.Cut(addr, ":")
	calls := map[string][][]string{
		"check": {{}}, "health": {{}}, "secret": {{}},
		"token":    {{"-device", evil}, {"-role", evil}, {"-scope", evil}, {"-o", file}},
		"doctor":   {{hostile.URL}, {"-token-file", file + "x", hostile.URL}, {"http://" + evil}},
		"export":   {{}, {"-o", file}, {"-recipient", evil}, {"-passphrase-file", file + "x"}},
		"import":   {{file}, {"-identity", file, file}, {file + "x"}},
		"erase":    {{"-all"}, {"7"}, {evil}},
		"sessions": {{}, {"-end", evil}}, "families": {{}, {"-end", evil}},
		"revoke": {{evil}, {"-before", evil, evil}},
		"keys":   {{}, {"-reload"}}, "blocks": {{}}, "reports": {{}},
		"block": {{"192.0.2.0/24"}, {evil}, {"-for", evil, "192.0.2.1"}}, "unblock": {{"192.0.2.0/24"}, {evil}},
		"audit": {{}, {"-f"}, {"-n", evil}},
		"lives": {{}, {"-erase", evil}, {"-erase-all"}},
		"hold":  {{}, {evil}}, "release": {{}, {evil}},
		"version": {{}},
	}
	lookup := environment(map[string]string{"OPERATOR_ADDR": "unix:" + filepath.Join(dir, "s"), "HOST": host, "PORT": port})
	spoilt := environment(map[string]string{
		"OPERATOR_ADDR": evil, "HOST": evil, "PORT": evil, "ALLOWED_DEVICE_ID": evil, "ALLOWED_ORIGINS": evil, "HISTORY_DIR": file, "LOG_FORMAT": evil,
		"TLS_CERT_FILE": file, "TLS_KEY_FILE": file, "TRUSTED_PROXIES": evil, "JWT_SECRET_FILE": file + "x", "JWT_SECRET": "-",
	})
	ours := 0
	for _, v := range verbs() {
		tried, ok := calls[v.name]
		if !ok {
			t.Errorf("the verb %q is missing here", v.name)
		}
		verbName = v.name
		asked.Store(0)
		for _, args := range append(slices.Clone(tried), []string{"-h"}, []string{"-" + evil}, []string{evil, evil}) {
			for _, forPrograms := range []bool{false, true} {
				if forPrograms && !v.json {
					continue
				}
				words := append([]string{v.name}, args...)
				if forPrograms {
					words = append(words, "-json")
				}
				for _, refused = range []bool{false, true} {
					var out, errs bytes.Buffer
					if code := run(t.Context(), words, lookup, &out, &errs); strings.Contains(errs.String(), "not this server's JSON") {
						t.Errorf("%q does not understand the answer, exit code %d: bring said up to date", words, code)
					}
					tame(t, words, out.String(), errs.String())
					ours += strings.Count(out.String()+errs.String(), `\u009b`)
					if strings.Contains(out.String()+errs.String(), "\nserver: all is well") {
						t.Errorf("%q: a stranger's text poses as a line of ours:\n%s%s", words, &out, &errs)
					}
				}
				var out, errs bytes.Buffer
				run(t.Context(), words, spoilt, &out, &errs)
				tame(t, words, out.String(), errs.String())
			}
		}
		if _, answered := said[v.name]; answered && v.name != "import" && asked.Load() == 0 {
			t.Errorf("the verb %q did not ask the hostile server", v.name)
		}
	}
	if ours < 100 {
		t.Errorf("the strangers' text was printed only %d times", ours)
	}
	for _, words := range [][]string{{evil}, {"-" + evil}, {}} {
		var out, errs bytes.Buffer
		run(t.Context(), words, spoilt, &out, &errs)
		tame(t, words, out.String(), errs.String())
	}
}

// tame fails the test if a program prints text that controls a terminal.
func tame(t *testing.T, words []string, printed ...string) {
	t.Helper()
	for _, text := range printed {
		for _, r := range text {
			if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Errorf("%q prints %q in:\n%q", words, r, text)
				break
			}
		}
		if !utf8.ValidString(text) {
			t.Errorf("%q prints broken UTF-8: %q", words, text)
		}
	}
}
