// Package redistest runs real engines for tests: redis-server, or valkey-server
// if it is installed, on loopback, in directories of their own. It also has a
// proxy that can hold or cut the connections to them.
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Binary returns the path of an engine's program, such as "redis-server". If it
// is not installed, the test is skipped, or fails under CI=true.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing := name + " is not installed: install Debian's package redis-server"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return path
}

// Server is a running engine.
type Server struct {
	Addr string // HOST:PORT
	Dir  string // its dump and its append-only file are here

	t    testing.TB
	args []string
	mu   sync.Mutex
	cmd  *exec.Cmd
	out  *bytes.Buffer
}

// Start starts a redis-server with options such as "--appendonly", "yes". It
// ends with the test.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	s := &Server{Addr: freeAddr(t), Dir: t.TempDir(), t: t}
	_, port, _ := net.SplitHostPort(s.Addr)
	s.args = append([]string{
		Binary(t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "",
		"--maxmemory-policy", "noeviction", "--logfile", filepath.Join(s.Dir, "log"),
	}, options...)
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// freeAddr returns a loopback address at which nothing listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Restart starts the engine at the same address again, after Kill. It returns
// when the engine answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 1000 {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprint(conn, "PING\r\n")
			answer := make([]byte, 7)
			n, _ := conn.Read(answer)
			conn.Close()
			if strings.HasPrefix(string(answer[:n]), "+PONG") {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("redis-server does not answer at %s: %s", s.Addr, s.out)
}

// Kill kills the engine, as a crash does, and waits for its end. It may be
// called again.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Port returns the number in Addr.
func (s *Server) Port() int {
	_, port, _ := net.SplitHostPort(s.Addr)
	n, _ := strconv.Atoi(port)
	return n
}

// Client returns a client of the engine, which is closed with the test.
func (s *Server) Client() rueidis.Client { return Client(s.t, s.Addr) }

// Client returns a client of the engine at addr, such as that of a proxy. It is
// closed with the test.
func Client(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
