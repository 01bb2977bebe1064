package release_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// sources copies what a release is built from.
func sources(t *testing.T, to string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || name == filepath.Join("examples", "interop")):
			return fs.SkipDir
		case !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// release runs the script in a checkout, with more environment.
func release(t *testing.T, checkout, out string, env []string, platforms ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(checkout, "examples/deploy/release"), out}, platforms...)...)
	// No Docker and no Podman: their builds are not a test's.
	cmd.Env = append(os.Environ(), append([]string{"DOCKER_HOST=unix:///nowhere", "CONTAINER_HOST=unix:///nowhere"}, env...)...)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// Two builds of the same sources are equal, though the directory, the build
// cache, the age of the files and the caller's environment differ.
func TestReleaseIsReproducible(t *testing.T) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	var sums [2]string
	var outs [2]string
	for i, env := range [][]string{
		nil,
		{"GOCACHE=" + t.TempDir(), "GOFLAGS=-tags=other", "GOAMD64=v2", "CGO_ENABLED=1", "GODEBUG=panicnil=1", "LANG=C", "TZ=Asia/Tokyo"},
	} {
		checkout := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i+1))
		sources(t, checkout)
		outs[i] = filepath.Join(t.TempDir(), "out")
		if text, err := release(t, checkout, outs[i], env, platform); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		text, err := os.ReadFile(filepath.Join(outs[i], "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = string(text)
	}
	if sums[0] != sums[1] || strings.Count(sums[0], "\n") != 2 {
		t.Errorf("the builds differ:\n%s%s", sums[0], sums[1])
	}
	check := exec.Command("sha256sum", "--strict", "-c", "SHA256SUMS")
	check.Dir = outs[0]
	if text, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}

	// The programs run, and hold no path of this machine.
	name := "relay-" + strings.Replace(platform, "/", "-", 1)
	if text, err := exec.Command(filepath.Join(outs[0], name), "version").Output(); err != nil || !bytes.HasPrefix(text, []byte("relay ")) {
		t.Errorf("%s version says %q (%v)", name, text, err)
	}
	code, err := os.ReadFile(filepath.Join(outs[0], name))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(code, []byte("TestReleaseIsReproducible")) {
		t.Errorf("%s holds the path that it was built in", name)
	}
}

// The script refuses what it cannot do, before it builds anything.
func TestReleaseRefuses(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why, out, platform, want string
	}{
		{"files of others would be among the checksums", t.TempDir(), "linux/amd64", "must be a new directory"},
		{"a platform is a part of a name", filepath.Join(t.TempDir(), "out"), "../linux/amd64", "no OS/ARCH"},
		{"a platform that Go does not know", filepath.Join(t.TempDir(), "out"), "linux/abacus", "linux/abacus"},
	} {
		if text, err := release(t, here, row.out, nil, row.platform); err == nil || !strings.Contains(text, row.want) {
			t.Errorf("%s: %v\n%s", row.why, err, text)
		}
	}
}

// CI builds every platform that the script names.
func TestReleaseIsInCI(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return strings.HasPrefix(line, `examples/deploy/release "$tools/release"`)
	}) {
		t.Error("CI does not run examples/deploy/release")
	}
}
