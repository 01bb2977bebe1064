// Package relay runs the real server as a process, for tests of browsers,
// proxies and other programs that use it.
package relay

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
)

const secret = "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd"

// Patience is how long a test waits for an event that must happen.
const Patience = time.Minute

// Server is the relay in production mode, on a port of its own, or on the Unix
// socket of a HOST in its environment.
type Server struct {
	Addr  string   // host:port or unix:PATH
	Under []string // a program, with its arguments, that runs the server in its own process, such as strace -D

	As *syscall.SysProcAttr // the identity of the server's process, or nil

	t      *testing.T
	binary string
	env    []string
	cmd    *exec.Cmd
	read   chan struct{} // closed when the log has ended

	mu  sync.Mutex
	log []string
}

// New builds the server, which stops when the test ends. env holds additional
// variables as NAME=value.
func New(t *testing.T, env ...string) *Server {
	t.Helper()
	s := &Server{t: t, Addr: freeport.Addr(t), binary: filepath.Join(t.TempDir(), "server")}
	build := exec.Command("go", "build", "-o", s.binary, "./examples/server")
	build.Dir = "../../.." // its own module, with its own versions
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	_, port, _ := net.SplitHostPort(s.Addr)
	for _, variable := range env {
		if host, ok := strings.CutPrefix(variable, "HOST="); ok && strings.HasPrefix(host, "unix:") {
			s.Addr = host
		}
	}
	s.env = append([]string{
		"JWT_SECRET=" + secret, "ALLOWED_DEVICE_ID=pi-1", "NODE_ENV=production",
		"PORT=" + port, "OPERATOR_ADDR=", "LOG_FORMAT=json",
	}, env...)
	t.Cleanup(func() {
		if s.cmd != nil {
			s.Stop()
		}
	})
	return s
}

// Client returns a client that connects to the server itself, whatever the host
// in the URL.
func (s *Server) Client() *http.Client {
	network, addr := "tcp", s.Addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		DisableKeepAlives: true,
	}}
}

// Socket returns the address of a Unix socket that does not exist yet, in a
// directory whose path is short.
func Socket(t *testing.T) string {
	t.Helper()
	return "unix:" + filepath.Join(testkit.ShortDir(t), "relay.sock")
}

// Start runs the server with arguments, and returns when it listens.
func (s *Server) Start(args ...string) {
	s.t.Helper()
	words := append(append(s.Under[:len(s.Under):len(s.Under)], s.binary), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env, cmd.SysProcAttr = s.env, s.As
	out, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd, s.read = cmd, make(chan struct{})
	listening := make(chan struct{})
	go s.follow(out, listening)
	select {
	case <-listening:
	case <-s.read:
		s.t.Fatalf("the server does not listen:\n%s", strings.Join(s.Lines(), "\n"))
	}
}

func (s *Server) follow(out io.Reader, listening chan<- struct{}) {
	defer close(s.read)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		s.mu.Lock()
		s.log = append(s.log, lines.Text())
		s.mu.Unlock()
		if started.MatchString(lines.Text()) {
			close(listening)
		}
	}
}

// started matches the log line of a server that listens, in both LOG_FORMATs.
var started = regexp.MustCompile(`"msg":"listening"|msg=listening`)

// Stop ends the server as a supervisor does, and checks that the log holds no
// secrets.
func (s *Server) Stop() {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.read
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
	s.cmd = nil
	for _, line := range s.Lines() {
		if leak.MatchString(line) {
			s.t.Errorf("a token or the secret is in the log: %s", line)
		}
	}
}

// leak matches the values that no log may contain: a JSON Web Token, a refresh
// token, the secret.
var leak = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|rgrt_[A-Za-z0-9_-]+|` + secret)

// Token returns a token for a device.
func (s *Server) Token() string {
	s.t.Helper()
	return s.Verb("token")
}

// Verb runs a command with the server's environment, and returns its output.
func (s *Server) Verb(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(s.binary, args...)
	cmd.Env = s.env
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("server %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(string(out))
}

// Logged waits for a line of the log that contains all parts.
func (s *Server) Logged(parts ...string) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); <-tick.C {
		for _, line := range s.Lines() {
			if holds(line, parts) {
				return
			}
		}
	}
	s.t.Fatalf("no line of the log contains %q:\n%s", parts, strings.Join(s.Lines(), "\n"))
}

// Binary returns the path of the program, and Env its environment.
func (s *Server) Binary() string { return s.binary }
func (s *Server) Env() []string  { return s.env[:len(s.env):len(s.env)] }

// Lines returns what the server has logged.
func (s *Server) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log[:len(s.log):len(s.log)]
}

func holds(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}
