package deploy_test

import (
	"bytes"
	"context"
	"debug/elf"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/internal/freeport"
)

const root = "../../.."

// nobody is the image's user.
const nobody = 65534

// instructions returns a Dockerfile's instructions, each in one line.
func instructions(text string) (all []string) {
	text = regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// last returns the last instruction of a kind, without its name.
func last(t *testing.T, all []string, kind string) string {
	t.Helper()
	for _, i := range slices.Backward(all) {
		if rest, ok := strings.CutPrefix(i, kind+" "); ok {
			return rest
		}
	}
	t.Fatalf("the Dockerfile has no %s", kind)
	return ""
}

// TestImage runs the Dockerfile's build command on the files that .dockerignore
// admits, and runs the result as the container would: in an empty root
// directory, as the user nobody.
func TestImage(t *testing.T) {
	all := instructions(shipped(t, "Dockerfile"))
	if from := last(t, all, "FROM"); from != "scratch" {
		t.Errorf("the image is made from %s", from)
	}
	if user := last(t, all, "USER"); user != "65534:65534" {
		t.Errorf("the image's user is %s", user)
	}
	version, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	base := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+)-`).FindStringSubmatch(shipped(t, "Dockerfile"))
	if base == nil || !strings.Contains(string(version), "\ngo "+base[1]+".") {
		t.Errorf("the image is built with Go %q, which is not go.mod's", base)
	}

	sources := t.TempDir()
	copied := buildContext(t, sources)
	for _, file := range copied {
		if strings.HasSuffix(file, ".env") || strings.Contains(file, "secret") && !strings.HasSuffix(file, ".go") || strings.HasPrefix(file, "examples/interop/") || strings.HasPrefix(file, ".git/") {
			t.Errorf("%s goes into the build", file)
		}
	}
	var command string
	for _, i := range all {
		if strings.Contains(i, "go build") {
			command = strings.TrimPrefix(i, "RUN ")
		}
	}
	out := t.TempDir()
	if strings.Count(command, " -o /out/") != 1 {
		t.Fatalf("the build command has no output: %s", command)
	}
	cmd := exec.Command("sh", "-ec", strings.Replace(command, " -o /out/", " -o "+out+"/", 1))
	cmd.Dir = sources
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, text)
	}
	binary := filepath.Join(out, "relay")
	static(t, binary, sources)

	if os.Geteuid() != 0 {
		testkit.Missing(t, "an empty root takes root: run this test as root")
	}
	empty := t.TempDir()
	for path, perm := range map[string]fs.FileMode{"": 0o755, "var": 0o755, "var/lib": 0o755, "var/lib/relay": 0o700, "var/lib/relay/auth": 0o700, "var/lib/relay/history": 0o700, "run": 0o755, "run/secrets": 0o755} {
		path = filepath.Join(empty, path)
		if err := os.MkdirAll(path, perm); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, perm); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"var/lib/relay", "var/lib/relay/auth", "var/lib/relay/history"} {
		if err := os.Chown(filepath.Join(empty, path), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(binary, filepath.Join(empty, "relay")); err != nil {
		t.Fatal(err)
	}
	env := append(strings.Fields(last(t, all, "ENV")), composed(t)...)
	for name, value := range map[string]string{
		"jwt_secret": "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "history_key": "PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE",
		"jwt_secret_previous": "", "history_key_previous": "",
	} {
		if err := os.Chown(put(t, empty, "run/secrets/"+name, value+"\n"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeport.Addr(t)
	_, port, _ := net.SplitHostPort(addr)
	// The last value of a variable counts. The test does not listen on every
	// address, because it runs outside a container.
	env = append(env, "HOST=127.0.0.1", "PORT="+port, "OPERATOR_ADDR=")
	start := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), 2*relay.Patience)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, "/relay", args...)
		cmd.Path, cmd.Err = "/relay", nil
		cmd.Env, cmd.Dir = env, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: empty, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	_, health, found := strings.Cut(last(t, all, "HEALTHCHECK"), ` CMD ["/relay", `)
	if health = strings.Trim(health, `"]`); !found || health == "" {
		t.Fatalf("the health check is %q", health)
	}
	if text, err := start(health).CombinedOutput(); err == nil {
		t.Errorf("healthy before the start: %s", text)
	}
	var log bytes.Buffer
	server := start()
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(relay.Patience); ; <-tick.C {
		text, err := start(health).CombinedOutput()
		if err == nil && string(text) == "ready\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy: %v: %s\n%s", err, text, &log)
		}
	}
	// The history and the pairs are stored in the volume.
	if text, err := start("token", "-pair").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if files, err := os.ReadDir(filepath.Join(empty, "var/lib/relay/history")); err != nil || len(files) == 0 {
		t.Errorf("the history is not there: %v, %v", files, err)
	}
	_ = server.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, &log)
	}
}

// static checks that a program is statically linked, and that it contains
// neither symbols nor the path of its sources.
func static(t *testing.T, binary, sources string) {
	t.Helper()
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has %v", p.Type)
		}
	}
	if symbols, err := f.Symbols(); err == nil {
		t.Errorf("%d symbols are left in the program", len(symbols))
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(sources)) {
		t.Error("the path of the sources is in the program")
	}
}

// buildContext copies the files of the build context, and returns their paths.
func buildContext(t *testing.T, to string) (copied []string) {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(shipped(t, "Dockerfile.dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	files := os.DirFS(root)
	err = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && (d.Name() == "node_modules" || d.Name() == ".git") {
				return fs.SkipDir
			}
			return err
		}
		ignored, err := matcher.MatchesOrParentMatches(path)
		if err != nil || ignored {
			return err
		}
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		copied = append(copied, path)
		target := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

// composed returns the environment of the relay in compose.yaml.
func composed(t *testing.T) (env []string) {
	t.Helper()
	for name, value := range project(t).Services["relay"].Environment {
		if value != nil {
			env = append(env, name+"="+*value)
		}
	}
	return env
}

// project loads compose.yaml with Compose's own loader, which also checks the
// schema.
func project(t *testing.T, env ...string) *types.Project {
	t.Helper()
	return projectOf(t, "compose.yaml", env...)
}

func projectOf(t *testing.T, file string, env ...string) *types.Project {
	t.Helper()
	if env == nil {
		env = []string{"ALLOWED_DEVICE_ID=pi-1", "RELAY_SITE_NAME=art.example"}
	}
	opts, err := cli.NewProjectOptions([]string{"../../deploy/" + file}, cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCompose(t *testing.T) {
	p := project(t)
	server, caddy := p.Services["relay"], p.Services["caddy"]
	if len(server.Ports) > 0 {
		t.Errorf("the relay's port is published: %v", server.Ports)
	}
	var published []string
	for _, port := range caddy.Ports {
		published = append(published, port.Published+"/"+port.Protocol)
	}
	if want := []string{"80/tcp", "443/tcp", "443/udp"}; !slices.Equal(published, want) {
		t.Errorf("published are %v, want %v", published, want)
	}
	for name, s := range p.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s is not confined", name)
		}
	}
	if len(server.CapAdd) > 0 || !slices.Equal(caddy.CapAdd, []string{"NET_BIND_SERVICE"}) {
		t.Errorf("capabilities: %v, %v", server.CapAdd, caddy.CapAdd)
	}
	if len(server.Networks) != 1 || !bool(p.Networks["inside"].Internal) {
		t.Error("the relay is on a network that leads out")
	}
	// The relay trusts exactly the proxy's address.
	inside := caddy.Networks["inside"]
	if got := server.Environment["TRUSTED_PROXIES"]; inside == nil || got == nil || *got != inside.Ipv4Address+"/32" {
		t.Errorf("the relay trusts %v, and Caddy is at %v", got, inside)
	}
	// Caddy's upstream is the relay.
	if got := caddy.Environment["RELAY_UPSTREAM"]; got == nil || *got != "relay:3000" {
		t.Errorf("Caddy's upstream is %v", got)
	}
	if *server.StopGracePeriod < types.Duration(5*time.Second) {
		t.Error("the relay is killed before it has closed its connections")
	}
	// Also the previous keys, which a planned change needs without a new
	// container.
	for _, name := range []string{"JWT_SECRET", "JWT_SECRET_PREVIOUS", "HISTORY_KEY", "HISTORY_KEY_PREVIOUS"} {
		if _, ok := server.Environment[name]; ok {
			t.Errorf("%s is in the environment, which docker inspect shows", name)
		}
		secret := strings.ToLower(name)
		if file := server.Environment[name+"_FILE"]; file == nil || *file != "/run/secrets/"+secret {
			t.Errorf("%s_FILE is %v", name, file)
		}
		if !slices.ContainsFunc(server.Secrets, func(s types.ServiceSecretConfig) bool { return s.Source == secret }) || filepath.Base(p.Secrets[secret].File) != secret {
			t.Errorf("%s is not in the container", secret)
		}
		if made := strings.Contains(shipped(t, "README.md"), "for name in jwt_secret history_key; do docker run --rm relay secret >secrets/$name; : >secrets/${name}_previous; done"); !made {
			t.Error("README.md does not make the files of the secrets")
		}
	}
	if server.Build == nil || filepath.Clean(filepath.Join(server.Build.Context, server.Build.Dockerfile)) != absolute(t, "../../deploy/Dockerfile") {
		t.Errorf("the relay is built by %+v", server.Build)
	}
	// If the operator's two values are missing, the error names one of them.
	if opts, err := cli.NewProjectOptions([]string{"../../deploy/compose.yaml"}, cli.WithEnv(nil)); err != nil {
		t.Fatal(err)
	} else if _, err := opts.LoadProject(t.Context()); err == nil || !strings.Contains(err.Error(), "devices that may publish") && !strings.Contains(err.Error(), "site's name") {
		t.Errorf("without values: %v", err)
	}
	// If the docker command and its compose plugin are installed, they check
	// the file too.
	if docker, err := exec.LookPath("docker"); err == nil && exec.Command(docker, "compose", "version").Run() == nil {
		cmd := exec.Command(docker, "compose", "-f", "../../deploy/compose.yaml", "config", "-q")
		cmd.Env = append(os.Environ(), "ALLOWED_DEVICE_ID=pi-1", "RELAY_SITE_NAME=art.example")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("docker compose config: %v\n%s", err, out)
		}
	}
}

// compose-nodes.yaml runs two servers that share one engine, and only they can
// reach it.
func TestComposeNodes(t *testing.T) {
	p := projectOf(t, "compose-nodes.yaml")
	caddy, engine := p.Services["caddy"], p.Services["valkey"]
	for name, s := range p.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s is not confined", name)
		}
		if name != "caddy" && len(s.Ports) > 0 {
			t.Errorf("the port of %s is published: %v", name, s.Ports)
		}
		for variable := range s.Environment {
			if slices.Contains([]string{"JWT_SECRET", "HISTORY_KEY", "REDIS_URL", "HISTORY_DIR", "AUTH_DIR"}, variable) {
				t.Errorf("%s is in the environment of %s", variable, name)
			}
		}
	}
	if _, ok := caddy.Networks["engine"]; ok || !bool(p.Networks["engine"].Internal) || !bool(p.Networks["inside"].Internal) || len(engine.Networks) != 1 {
		t.Error("others than the relays can reach the engine, or the relays can reach the internet")
	}
	var upstream []string
	for _, name := range []string{"relay-1", "relay-2"} {
		s := p.Services[name]
		upstream = append(upstream, name+":3000")
		if *s.Environment["NODE_NAME"] != name || *s.Environment["TRUSTED_PROXIES"] != caddy.Networks["inside"].Ipv4Address+"/32" {
			t.Errorf("%s has another name, or trusts another proxy", name)
		}
		for _, secret := range []string{"jwt_secret", "history_key", "redis_url"} {
			if file := s.Environment[strings.ToUpper(secret)+"_FILE"]; file == nil || *file != "/run/secrets/"+secret {
				t.Errorf("%s has no %s", name, secret)
			}
		}
	}
	if got := *caddy.Environment["RELAY_UPSTREAM"]; got != strings.Join(upstream, " ") {
		t.Errorf("Caddy's upstreams are %s", got)
	}
	for _, want := range []string{"noeviction", "/run/secrets/engine_users", "--appendonly"} {
		if !slices.Contains(engine.Command, want) {
			t.Errorf("the engine's command lacks %s", want)
		}
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
