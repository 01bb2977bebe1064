package main

import (
	"bytes"
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestBuildOf(t *testing.T) {
	machine := runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	vcs := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.time", Value: "2026-11-25T10:00:00Z"}, {Key: "vcs.modified", Value: "false"}}
	changed := append(vcs[:2:2], debug.BuildSetting{Key: "vcs.modified", Value: "true"})
	for _, row := range []struct {
		why  string
		info *debug.BuildInfo
		want string
	}{
		{"a program without build information", nil, "relay (devel), "},
		{"a test's program, which has no version", &debug.BuildInfo{}, "relay (devel), "},
		{"an installed version", &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, "relay v1.2.3, "},
		{"a checkout", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs}, "relay (devel), revision 0123456789ab of 2026-11-25T10:00:00Z, "},
		{"a checkout with changes", &debug.BuildInfo{Settings: changed}, "relay (devel), revision 0123456789ab of 2026-11-25T10:00:00Z with changes, "},
	} {
		var out bytes.Buffer
		buildOf(row.info).writeText(&out)
		if out.String() != row.want+machine {
			t.Errorf("%s: %q, want %q", row.why, &out, row.want+machine)
		}
	}
}

// The version is printed without any environment, also when that is unusable.
func TestVersion(t *testing.T) {
	nothing := func(string) (string, bool) { return "", false }
	var text, object, errs bytes.Buffer
	if code := run(t.Context(), []string{"version"}, nothing, &text, &errs); code != exitOK || !strings.HasPrefix(text.String(), "relay ") || !strings.Contains(text.String(), runtime.Version()) {
		t.Errorf("exit code %d, %q, %s", code, &text, &errs)
	}
	var b build
	if code := run(t.Context(), []string{"version", "-json"}, nothing, &object, &errs); code != exitOK || json.Unmarshal(object.Bytes(), &b) != nil || b.Go != runtime.Version() || b.Version == "" {
		t.Errorf("exit code %d, %q, %s", code, &object, &errs)
	}
	if code := run(t.Context(), []string{"version", "x"}, nothing, &text, &errs); code != exitUsage {
		t.Errorf("with an argument: exit code %d", code)
	}
}
