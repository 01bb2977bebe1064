// Package redistest runs real engines for tests: redis-server, or valkey-server
// if it is installed, on loopback, in directories of their own. It starts
// replicas, Sentinels and clusters of them, and has a proxy that can hold or
// cut the connections to them. Every process ends with the test, also if the
// test panics (on Linux).
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/freeport"
	"github.com/relayguard/relayguard/internal/machine"
)

// Engine is the name of an engine's program.
type Engine string

// The engines.
const (
	Redis  Engine = "redis-server"
	Valkey Engine = "valkey-server"
)

// Binary returns the path of an engine's program, such as "redis-server". If it
// is not installed, the test is skipped, or fails under CI=true.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		machine.Missing(t, name+" is not installed: install Debian's package redis-server")
	}
	return path
}

// Each runs test with each installed engine, as a subtest with the name of the
// engine. Redis must be installed, as [Binary] says. If Valkey is not, the log
// says so.
func Each(t *testing.T, test func(*testing.T, Engine)) {
	t.Helper()
	t.Run(string(Redis), func(t *testing.T) { test(t, Redis) })
	if _, err := exec.LookPath(string(Valkey)); err != nil {
		t.Log("valkey-server is not installed: these tests ran on redis-server alone")
		return
	}
	t.Run(string(Valkey), func(t *testing.T) { test(t, Valkey) })
}

// Server is a running engine.
type Server struct {
	Addr string // HOST:PORT
	Dir  string // its dump and its append-only file are here

	t       testing.TB
	engine  Engine
	options []string
	program string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	out  *bytes.Buffer // may be read after done
}

// Start starts a redis-server with options such as "--appendonly", "yes". It
// ends with the test.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	return Redis.Start(t, options...)
}

// Start starts the engine with options such as "--appendonly", "yes". It ends
// with the test.
func (e Engine) Start(t testing.TB, options ...string) *Server {
	t.Helper()
	return e.start(t, func(dir string) []string {
		return append([]string{
			"--save", "", "--rdbcompression", "no", "--maxmemory-policy", "noeviction",
			"--repl-diskless-sync-delay", "0",
		}, options...)
	})
}

// start starts the engine at a free port, with the options for its directory.
func (e Engine) start(t testing.TB, options func(dir string) []string) *Server {
	t.Helper()
	s := &Server{t: t, engine: e, program: Binary(t, string(e)), Dir: t.TempDir()}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			s.logTail()
		}
	})
	var err error
	for range 10 { // another process may take the port in between
		s.Addr = freeport.Addr(t)
		s.options = options(s.Dir)
		if err = s.run(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// Restart starts the engine at the same address again, after Kill. It returns
// when the engine has loaded its files and answers.
func (s *Server) Restart() {
	s.t.Helper()
	var err error
	for range 20 { // an outgoing connection may have the port for a moment
		if err = s.run(); err == nil {
			return
		}
	}
	s.t.Fatal(err)
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return fmt.Errorf("%s at %s runs already: call Kill before Restart", s.engine, s.Addr)
	}
	cmd, out, done := exec.Command(s.program, s.args()...), new(bytes.Buffer), make(chan struct{})
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.out, s.done = cmd, out, done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
			s.cmd = nil
			return fmt.Errorf("%s ended: %s", s.engine, out)
		default:
		}
		// Another engine may have taken the port before.
		info, err := Try(s.Addr, "INFO", "server")
		if err != nil || !strings.Contains(info, fmt.Sprintf("process_id:%d\r", cmd.Process.Pid)) {
			continue
		}
		if pong, err := Try(s.Addr, "PING"); err == nil && pong == "PONG" {
			return nil
		}
	}
	s.kill()
	return fmt.Errorf("%s does not answer at %s: %s", s.engine, s.Addr, out)
}

// args are the program's arguments. The options come first, since the first of
// them may be a file.
func (s *Server) args() []string {
	return append(slices.Clone(s.options),
		"--port", strconv.Itoa(s.Port()), "--bind", "127.0.0.1", "--dir", s.Dir,
		"--logfile", filepath.Join(s.Dir, "log"), "--daemonize", "no")
}

// Kill kills the engine, as a crash does, and waits for its end. It may be
// called again.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
		s.cmd = nil
	}
}

// logTail writes the last lines of the engine's log to that of the test.
func (s *Server) logTail() {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	s.t.Logf("%s at %s:\n%s", s.engine, s.Addr, strings.Join(lines[max(0, len(lines)-12):], "\n"))
}

// Port returns the number in Addr.
func (s *Server) Port() int {
	_, port, _ := net.SplitHostPort(s.Addr)
	n, _ := strconv.Atoi(port)
	return n
}

// CPU returns the CPU time that the engine's process has used since its start.
func (s *Server) CPU() time.Duration {
	s.t.Helper()
	var cpu time.Duration
	info := s.Do("INFO", "cpu")
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		part, err := time.ParseDuration(field(info, name) + "s")
		if err != nil {
			s.t.Fatal(name, err)
		}
		cpu += part
	}
	return cpu
}

// Client returns a client of the engine, which is closed with the test.
func (s *Server) Client() rueidis.Client { return Client(s.t, s.Addr) }

// Client returns a client of the engine at addr, such as that of a proxy. It is
// closed with the test.
func Client(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	return client(t, rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
}

// Pipelined returns a client like Client, whose commands never wait for the
// answers to others. Use it before HoldAnswers: a command of Client may wait
// for an answer that is held, and not reach the engine.
func Pipelined(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	return client(t, rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, AlwaysPipelining: true})
}

func client(t testing.TB, option rueidis.ClientOption) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
