package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Every mistake in flags and environment is reported, all at once.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "request.json")
	if err := os.WriteFile(mine, []byte(`{"temperature":0.7,"model":"x","Stream":false}`), 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, "prompt")
	if err := os.WriteFile(long, make([]byte, 9<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		env  string
		code int
		want []string
	}{
		{"help", []string{"-h"}, "", exitOK, []string{"-token-file", "-memory-mark", "DANGER", "RELAY_URL"}},
		{"nothing", nil, "", exitUsage, []string{"-token-file FILE is required", "token -pair"}},
		{"unknown flag", []string{"-relais", "x"}, "", exitUsage, []string{"-relais"}},
		{"stray word", []string{"run"}, "", exitUsage, []string{`"run"`}},
		{"all at once", []string{"-relay", "relay.example", "-memory-mark", "101", "-window", "much", "-log-level", "loud"}, "", exitUsage, []string{"RELAY_URL", "MEMORY_MARK", "LLM_WINDOW", "LOG_LEVEL"}},
		{"half a model", []string{"-token-file", file, "-llm", "http://localhost:11434/v1"}, "", exitUsage, []string{"-llm and -model"}},
		{"two sources", []string{"-token-file", file, "-stdin", "-llm", "http://localhost:11434/v1", "-model", "m"}, "", exitUsage, []string{"-stdin and -llm exclude each other"}},
		{"token in the clear", []string{"-token-file", file, "-relay", "ws://relay.example/ws"}, "", exitUsage, []string{"in the clear", "wss://"}},
		{"key in the clear", []string{"-token-file", file, "-llm", "http://models.example/v1", "-model", "m"}, "LLM_API_KEY=key-canary7731", exitUsage, []string{"in the clear", "https://"}},
		{"password in the address", []string{"-token-file", file, "-relay", "wss://u:key-canary7731@relay.example/ws"}, "", exitUsage, []string{"RELAY_URL"}},
		{"a room and more", []string{"-token-file", file, "-relay", "wss://relay.example/ws?room=pi-1&since=x"}, "", exitUsage, []string{"RELAY_URL", "?room=NAME for a room"}},
		{"no room", []string{"-token-file", file, "-relay", "wss://relay.example/ws?room="}, "", exitUsage, []string{"RELAY_URL"}},
		{"a room", []string{"-token-file", filepath.Join(dir, "none"), "-relay", "wss://relay.example/ws?room=pi-1"}, "", exitFailed, []string{"no such file"}},
		{"no such file", []string{"-token-file", filepath.Join(dir, "none")}, "", exitFailed, []string{"no such file", "token -pair"}},
		{"two prompts", []string{"-token-file", file, "-prompt", "a", "-prompt-file", file}, "", exitUsage, []string{"exclude each other"}},
		{"long prompt", []string{"-token-file", file, "-prompt-file", long}, "", exitUsage, []string{"at most 8192 bytes long"}},
		{"a request that is the device's", []string{"-token-file", file, "-llm", "http://localhost:11434/v1", "-model", "m", "-request", mine}, "", exitUsage, []string{"-request: " + mine, `must not set "model": -model names the model`, `must not set "Stream": the device always asks for a stream`}},
		{"a request that is no JSON", []string{"-token-file", file, "-llm", "http://localhost:11434/v1", "-model", "m", "-request", file}, "", exitUsage, []string{"-request", "must be a JSON object"}},
		{"no request", []string{"-token-file", file, "-llm", "http://localhost:11434/v1", "-model", "m", "-request", dir}, "", exitUsage, []string{"-request", "must be a file"}},
		{"a request without a model", []string{"-token-file", file, "-request", mine}, "", exitUsage, []string{"-request needs -llm"}},
		{"thoughts", []string{"-token-file", file, "-reasoning", "aloud"}, "", exitUsage, []string{"LLM_REASONING", "drop", "apart"}},
		{"no prompt file", []string{"-token-file", file, "-prompt-file", filepath.Join(dir, "none")}, "", exitUsage, []string{"no such file"}},
		{"from the environment", nil, "DEVICE_TOKEN_FILE=" + filepath.Join(dir, "other"), exitFailed, []string{"other", "no such file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			code := run(t.Context(), tc.args, func(name string) (string, bool) {
				n, v, ok := strings.Cut(tc.env, "=")
				return v, ok && n == name
			}, &out)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("does not say %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "canary") {
				t.Errorf("repeats a secret:\n%s", out.String())
			}
		})
	}
}

// Every flag has its variable, and the variable does what the flag does.
func TestEveryFlagHasItsVariable(t *testing.T) {
	dir := t.TempDir()
	prompt := filepath.Join(dir, "prompt")
	if err := os.WriteFile(prompt, []byte("\"Think,\" it said.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	request := filepath.Join(dir, "request")
	if err := os.WriteFile(request, []byte(`{"temperature":0.7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var help strings.Builder
	none := func(string) (string, bool) { return "", false }
	if _, err := loadConfig([]string{"-h"}, none, &help); err == nil {
		t.Fatal("no help")
	}
	values := map[string]string{
		"relay": "wss://relay.example/ws", "token-file": "t", "refresh": "https://relay.example/r", "llm": "https://llm.example/v1", "model": "m",
		"window": "1KiB", "silence": "7m", "batch": "1s", "prompt": "Think.", "prompt-file": prompt, "plain": "true", "insecure-plain-http": "true", "memory-mark": "50",
		"simulate-memory": "1KiB", "state": "s", "log-level": "warn", "stdin": "true", "reasoning": "apart", "request": request,
	}
	need := map[string]string{"DEVICE_TOKEN_FILE": "t"}
	seen := 0
	for _, part := range strings.Split(help.String(), "\n  -")[1:] {
		name := strings.FieldsFunc(part, func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' })[0]
		open, end := strings.LastIndex(part, "("), strings.LastIndex(part, ")")
		value, ok := values[name]
		if open < 0 || end < open || !ok {
			t.Errorf("-%s has no variable, or this test has no value for it: %s", name, part)
			continue
		}
		seen++
		variable := part[open+1 : end]
		need := need
		if name == "stdin" { // in place of a model
			need = map[string]string{"DEVICE_TOKEN_FILE": "t"}
		}
		env := func(set map[string]string) func(string) (string, bool) {
			return func(name string) (string, bool) {
				if v, ok := set[name]; ok {
					return v, true
				}
				v, ok := need[name]
				return v, ok
			}
		}
		if name == "llm" || name == "model" || name == "request" {
			need = map[string]string{"DEVICE_TOKEN_FILE": "t", "LLM_URL": values["llm"], "LLM_MODEL": values["model"]}
		}
		byFlag, err := loadConfig([]string{"-" + name + "=" + value}, env(nil), &help)
		if err != nil {
			t.Errorf("-%s: %v", name, err)
		}
		byVariable, err := loadConfig(nil, env(map[string]string{variable: value}), &help)
		byDefault, _ := loadConfig(nil, none, &help)
		if err != nil || !reflect.DeepEqual(byFlag, byVariable) || reflect.DeepEqual(byFlag, byDefault) {
			t.Errorf("%s: %v, got %+v, want as with -%s: %+v", variable, err, byVariable, name, byFlag)
		}
	}
	if seen != len(values) {
		t.Errorf("%d flags, want %d", seen, len(values))
	}
}

// A flag wins over a variable, also if they name a prompt in different ways.
func TestPromptOfFlagWins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prompt")
	if err := os.WriteFile(file, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ flag, variable, value, want, why string }{
		{"-prompt=of the flag", "LLM_PROMPT", "x", "of the flag", "the same one"},
		{"-prompt=of the flag", "LLM_PROMPT_FILE", file, "of the flag", "the other one"},
		{"-prompt-file=" + file, "LLM_PROMPT", "x", "from the file", "and the reverse"},
		{"-prompt-file=" + file, "LLM_PROMPT_FILE", "none", "from the file", "the same one"},
		{`-prompt="in quotes"`, "LLM_PROMPT", "x", `"in quotes"`, "the command line keeps no quotes but those that are meant"},
	} {
		c, err := loadConfig([]string{"-token-file=t", row.flag}, func(name string) (string, bool) { return row.value, name == row.variable }, io.Discard)
		if err != nil || c.prompt != row.want {
			t.Errorf("%s with %s (%s): %q, %v", row.flag, row.variable, row.why, c.prompt, err)
		}
	}
}

// Under systemd a log line has no time, because the journal adds it.
func TestJournal(t *testing.T) {
	for set, want := range map[bool]bool{false: true, true: false} {
		var out strings.Builder
		(&config{}).logger(&out, func(string) (string, bool) { return "8:1", set }).Info("hello")
		if line := out.String(); strings.Contains(line, "time=") != want || !strings.Contains(line, "msg=hello") {
			t.Errorf("journal %v: %q", set, line)
		}
	}
}

// The number of restarts survives the process. A file that cannot be read or
// written does not stop the device.
func TestStateFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	for _, tc := range []struct {
		content string
		first   float64
		warns   bool
		why     string
	}{
		{"", 0, true, "emptied by a full disk"},
		{`{"restarts":41}`, 42, false, "the process's start is one more"},
		{`{"restarts":"x"}`, 0, true, "edited by hand"},
	} {
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		l := newLives(file, 0, (&config{}).logger(&out, os.LookupEnv))
		if l.first != tc.first || strings.Contains(out.String(), "WARN") != tc.warns {
			t.Errorf("%s: %v (%s)\n%s", tc.content, l.first, tc.why, out.String())
		}
	}
	var out strings.Builder
	l := newLives(filepath.Join(t.TempDir(), "none", "state"), 0, (&config{}).logger(&out, os.LookupEnv))
	l.save()
	if l.first != 0 || !strings.Contains(out.String(), "not saved") {
		t.Errorf("%v\n%s", l.first, out.String())
	}
}
