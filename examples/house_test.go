// Package examples_test checks rules for the whole repository: the imports of
// each package, and the words of each package's API.
package examples_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/internal/machine"
)

const module = "github.com/relayguard/relayguard/"

// packages are the packages of the library. Each may import the standard
// library, its own internal packages, and its parent. All other imports must be
// in others.
var packages = []pkg{
	{"headers", "", nil},
	{"headers/headerstest", "headers", nil},
	{"ratelimit", "", []string{"golang.org/x/time/rate"}},
	{"ratelimit/clientip", "", nil},
	{"ratelimit/redislimit", "ratelimit", []string{"github.com/redis/rueidis"}},
	{"wsauth", "", nil},
	{"wsauth/jwtauth", "wsauth", []string{"github.com/lestrrat-go/jwx/v2/jwa", "github.com/lestrrat-go/jwx/v2/jws"}},
	// It is a store of refresh tokens too. Package refresh imports only the
	// standard library and wsauth, so a program that needs no refresh tokens
	// pays nothing for it.
	{"wsauth/redisauth", "wsauth", []string{"github.com/redis/rueidis", module + "wsauth/refresh"}},
	{"wsauth/refresh", "wsauth", nil},
	{"wsauth/wsadapter", "wsauth", nil},
	{"wsauth/wsconn", "wsauth", []string{"nhooyr.io/websocket"}},
	{"history", "", nil},
	{"history/archive", "history", []string{"filippo.io/age", "filippo.io/age/armor"}},
	{"history/journal", "history", nil},
	{"history/redislog", "history", []string{"github.com/redis/rueidis"}},
	{"history/sse", "history", nil},
	{"envcheck", "", nil},
}

type pkg struct {
	path   string
	parent string
	others []string
}

// list runs go list. If that fails, the test fails in CI and is skipped
// elsewhere.
func list(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		machine.Missing(t, fmt.Sprintf("go list does not run here (%v): install Go", err))
	}
	return string(out)
}

// importsOf returns the imports of each package that matches, by path.
func importsOf(t *testing.T, patterns ...string) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	for line := range strings.Lines(list(t, append([]string{"-f", `{{.ImportPath}}: {{join .Imports " "}}`}, patterns...)...)) {
		path, list, _ := strings.Cut(strings.TrimSpace(line), ": ")
		imports[path] = strings.Fields(list)
	}
	return imports
}

func standard(path string) bool { return !strings.Contains(strings.Split(path, "/")[0], ".") }

// TestImports checks that each package can be used without the others: none of
// the five imports another, a subpackage imports its parent and never the
// reverse, and this file lists every third-party import.
func TestImports(t *testing.T) {
	imports := importsOf(t, module+"...")
	for _, p := range packages {
		if _, ok := imports[module+p.path]; !ok {
			t.Errorf("there is no package %s", p.path)
		}
		var others []string
		for path, list := range imports {
			if path != module+p.path && !strings.HasPrefix(path, module+p.path+"/internal/") {
				continue
			}
			for _, i := range list {
				switch {
				case standard(i), i == module+p.path, p.parent != "" && i == module+p.parent, strings.HasPrefix(i, module+strings.Split(p.path, "/")[0]+"/internal/"):
				default:
					others = append(others, i)
				}
			}
		}
		slices.Sort(others)
		if others = slices.Compact(others); !slices.Equal(others, p.others) {
			t.Errorf("%s imports %q, want %q", p.path, others, p.others)
		}
	}
	for path := range imports {
		rest := strings.TrimPrefix(path, module)
		listed := slices.ContainsFunc(packages, func(p pkg) bool { return p.path == rest })
		if !listed && !strings.HasPrefix(rest, "examples") && !strings.Contains("/"+rest, "/internal/") {
			t.Errorf("no rule names %s", rest)
		}
	}
}

// TestImportingCompilesNoMore checks what a program compiles that imports a
// package without third-party imports of its own: the standard library, and
// what the first of its parents lists.
func TestImportingCompilesNoMore(t *testing.T) {
	for _, p := range packages {
		if p.others != nil {
			continue
		}
		name := strings.Split(p.path, "/")[0]
		own := module + name
		first := packages[slices.IndexFunc(packages, func(p pkg) bool { return p.path == name })]
		for line := range strings.Lines(list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+p.path)) {
			if dep := strings.TrimSpace(line); dep != "" && dep != own && !strings.HasPrefix(dep, own+"/") && !slices.Contains(first.others, dep) {
				t.Errorf("a program that imports %s compiles %s", p.path, dep)
			}
		}
	}
}

// ranks are the packages ("rooms") of the server, from the lowest. A room may
// import lower rooms only.
var ranks = [][]string{
	{"lives"},
	{"relay", "trail", "certificate", "tracker", "web", "doctor", "watch/suspect", "engine", "socket", "hold"},
	{"config", "rooms"},
	{"watch", "authority", "blocklist"},
	{"operate"},
	{"site"},
	{""}, // the verbs
}

func TestRooms(t *testing.T) {
	const server = module + "examples/server"
	rank := map[string]int{}
	for i, rooms := range ranks {
		for _, room := range rooms {
			rank[strings.TrimSuffix(server+"/"+room, "/")] = i
		}
	}
	imports := importsOf(t, server+"/...")
	arrows := 0
	for _, from := range slices.Sorted(maps.Keys(imports)) {
		at, ok := rank[from]
		if !ok {
			t.Errorf("%s has no rank", from)
		}
		for _, to := range imports[from] {
			below, ours := rank[to]
			if !ours {
				continue
			}
			arrows++
			if below >= at {
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
			if strings.HasSuffix(to, "/config") && at < rank[server+"/site"] {
				t.Errorf("%s imports the whole configuration", from)
			}
		}
	}
	t.Logf("%d rooms, %d arrows between them, none upward", len(rank), arrows)

	// Only three rooms may import packages of Prometheus or Sentry.
	deps := importsOf(t, "-deps", server+"/...", module+"examples/device/...", module+"examples/load/...")
	for path, list := range deps {
		for _, i := range list {
			foreign := strings.HasPrefix(i, "github.com/prometheus/") || strings.HasPrefix(i, "github.com/getsentry/")
			ours := strings.HasPrefix(path, module)
			if foreign && ours && path != server+"/site" && path != server+"/watch" && path != server+"/tracker" {
				t.Errorf("%s imports %s", path, i)
			}
		}
	}
}

// TestImportersKeepTheirVersions builds a service that imports one package. The
// service has older dependencies than the server, and must keep their versions.
func TestImportersKeepTheirVersions(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	older := map[string]string{
		"github.com/prometheus/client_golang": "v1.20.5",
		"golang.org/x/crypto":                 "v0.32.0",
		"golang.org/x/time":                   "v0.11.0",
	}
	mod := "module service.example\n\ngo 1.26.0\n\nrequire " + strings.TrimSuffix(module, "/") + " v0.0.0\n\nreplace " + strings.TrimSuffix(module, "/") + " => " + root + "\n"
	for path, version := range older {
		mod += "\nrequire " + path + " " + version + "\n"
	}
	for name, text := range map[string]string{"go.mod": mod, "main.go": `package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

var (
	_ envcheck.Spec
	_ history.Config
	_ ratelimit.Config
	_ wsauth.Config
	_ jwtauth.Config
)

func main() {
	mw, err := headers.New(headers.Strict())
	if err != nil {
		panic(err)
	}
	_, _ = bcrypt.Cost(nil)
	_ = rate.Inf
	_ = http.ListenAndServe("127.0.0.1:0", mw.Handler(promhttp.Handler()))
}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := cmd.CombinedOutput()
		if err != nil {
			if os.Getenv("CI") == "true" || !strings.Contains(string(out), "dial tcp") {
				t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			t.Skip("no module proxy can be reached: connect to one, or fill the module cache")
		}
		return string(out)
	}
	run("mod", "tidy")
	run("build", "-o", os.DevNull, ".")
	for path, version := range older {
		if got := strings.TrimSpace(run("list", "-m", "-f", "{{.Version}}", path)); got != version {
			t.Errorf("%s went from %s to %s", path, version, got)
		}
	}
}
