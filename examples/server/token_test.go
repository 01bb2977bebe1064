package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTokenVerb(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"ALLOWED_DEVICE_ID": "pi-1,pi-2", "AUTH_DIR": dir}
	for _, row := range []struct {
		why  string
		env  map[string]string
		args []string
		code int
		want string
	}{
		{"which device?", env, nil, exitFailed, "ALLOWED_DEVICE_ID: pi-1, pi-2"},
		{"a stranger", env, []string{"-device", "pi-3"}, exitFailed, "pi-3"},
		{"an unknown role", env, []string{"-device", "pi-1", "-role", "god"}, exitFailed, "none of admin, auditor, metrics, profiler, publisher"},
		{"an unknown permission", env, []string{"-device", "pi-1", "-scope", "write"}, exitFailed, "the role has the permissions publish"},
		{"a scope of nothing is not all", env, []string{"-device", "pi-1", "-scope", ","}, exitFailed, "names no permission"},
		{"a pair has lifetimes of its own", env, []string{"-device", "pi-1", "-pair", "-ttl", "1h"}, exitFailed, "ACCESS_TOKEN_LIFETIME"},
		{"a pair has to be kept somewhere", nil, []string{"-pair"}, exitFailed, "AUTH_DIR"},
		{"a token", env, []string{"-device", "pi-1", "-role", "admin", "-scope", "publish"}, exitOK, "eyJ"},
		{"a pair", env, []string{"-device", "pi-1", "-pair"}, exitOK, `"refresh_token":"rgrt_`},
	} {
		var out strings.Builder
		code := run(t.Context(), append([]string{"token"}, row.args...), environment(row.env), &out, &out)
		if code != row.code || !strings.Contains(out.String(), row.want) {
			t.Errorf("%s: exit code %d: %s", row.why, code, out.String())
		}
	}

	name := filepath.Join(t.TempDir(), "token.json")
	var out strings.Builder
	if code := run(t.Context(), []string{"token", "-device", "pi-1", "-pair", "-o", name}, environment(env), &out, &out); code != exitOK || out.String() != "" {
		t.Errorf("into a new file: exit code %d: %s", code, out.String())
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Error(info, err)
	}
	if code := run(t.Context(), []string{"token", "-device", "pi-1", "-o", name}, environment(env), &out, &out); code != exitFailed || !strings.Contains(out.String(), "exists") {
		t.Errorf("over a file that is there: exit code %d: %s", code, out.String())
	}
}

// A token is checked as the server would, with its revocations, and is not
// printed.
func TestTokenCheck(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"ALLOWED_DEVICE_ID": "pi-1", "AUTH_DIR": dir}
	made := func(env map[string]string, args ...string) string {
		name := filepath.Join(t.TempDir(), "token")
		var out strings.Builder
		if code := run(t.Context(), append([]string{"token", "-o", name}, args...), environment(env), &out, &out); code != exitOK {
			t.Fatalf("no token: %s", out.String())
		}
		return name
	}
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := made(env)
	pair := made(env, "-pair")
	stranger := made(map[string]string{"ALLOWED_DEVICE_ID": "pi-9"}, "-device", "pi-9")
	foreign := made(map[string]string{"ALLOWED_DEVICE_ID": "pi-1", "JWT_SECRET": "Zk3vQ8nT1xYb6RfWm2JcHs9LdPaGe5Uo"})
	revoked := t.TempDir()
	if err := os.WriteFile(filepath.Join(revoked, "revocations.json"), []byte(`{"pi-1":"`+time.Now().Add(time.Minute).UTC().Format(time.RFC3339)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why  string
		env  map[string]string
		args []string
		code int
		want string
	}{
		{"a good token", env, []string{good}, exitOK, "device:      pi-1\nrole:        publisher\npermissions: publish\n"},
		{"its signature", env, []string{good}, exitOK, "signature:   valid\ndevice:"},
		{"a pair", env, []string{pair}, exitOK, "device:      pi-1\n"},
		{"what another device's says", env, []string{stranger}, exitFailed, "and its signature is valid:\n  alg        \"HS256\"\n"},
		{"what a forged one says", env, []string{foreign}, exitFailed, "signature does not prove that:\n  alg        \"HS256\"\n"},
		{"the device in it", env, []string{stranger}, exitFailed, "  device     \"pi-9\"\n"},
		{"its times", env, []string{foreign}, exitFailed, "Z\n"},
		{"with space around it", env, []string{file("\n" + string(mustRead(t, good)) + "\n")}, exitOK, "the server accepts"},
		{"of another device", env, []string{stranger}, exitFailed, "ALLOWED_DEVICE_ID does not name its device"},
		{"with another key", env, []string{foreign}, exitFailed, "JWT_SECRET"},
		{"revoked", map[string]string{"ALLOWED_DEVICE_ID": "pi-1", "AUTH_DIR": revoked}, []string{good}, exitFailed, "it is revoked"},
		{"no token", env, []string{file("hello")}, exitFailed, "no JSON Web Token"},
		{"nothing", env, []string{file(" \n")}, exitFailed, "the file is empty"},
		{"no file", env, []string{filepath.Join(dir, "absent")}, exitFailed, "no such file"},
		{"a film", env, []string{file(strings.Repeat("x", 70_000))}, exitFailed, "too large"},
		{"with a flag that makes one", env, []string{good, "-pair"}, exitFailed, "no other flag"},
	} {
		var out strings.Builder
		code := run(t.Context(), append([]string{"token", "-check"}, row.args...), environment(row.env), &out, &out)
		if code != row.code || !strings.Contains(out.String(), row.want) || strings.Contains(out.String(), "eyJ") || strings.Contains(out.String(), "rgrt_") {
			t.Errorf("%s: exit code %d: %s", row.why, code, out.String())
		}
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
