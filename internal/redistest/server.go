package redistest

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Replica starts a replica of the engine at addr, which may be that of a proxy,
// and waits until it is in step.
func Replica(t testing.TB, addr string, options ...string) *Server {
	t.Helper()
	return Redis.Replica(t, addr, options...)
}

// Replica starts a replica of the engine at addr, which may be that of a proxy,
// and waits until it is in step.
func (e Engine) Replica(t testing.TB, addr string, options ...string) *Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	s := e.Start(t, append([]string{"--replicaof", host, port}, options...)...)
	s.InStep(addr)
	return s
}

// InStep waits until this replica has everything that the engine at addr, its
// master or a proxy before that, has now.
func (s *Server) InStep(addr string) {
	s.t.Helper()
	master, err := Try(addr, "INFO", "replication")
	if err != nil {
		s.t.Fatal(err)
	}
	want, _ := strconv.ParseInt(field(master, "master_repl_offset"), 10, 64)
	id := field(master, "master_replid")
	Wait(s.t, "the replica at "+s.Addr+" is not in step with "+addr, func() bool {
		own, _ := Try(s.Addr, "INFO", "replication")
		if field(own, "master_link_status") != "up" {
			return false
		}
		if now := field(own, "master_replid"); now != id {
			// A master without a replica begins anew when the first one comes.
			master, _ = Try(addr, "INFO", "replication")
			id = field(master, "master_replid")
			want, _ = strconv.ParseInt(field(master, "master_repl_offset"), 10, 64)
			return false
		}
		has, _ := strconv.ParseInt(field(own, "slave_repl_offset"), 10, 64)
		return has >= want
	})
}

// Promote makes the engine a master.
func (s *Server) Promote() {
	s.t.Helper()
	s.Do("REPLICAOF", "NO", "ONE")
}

// Demote makes the engine a replica of the engine at addr, and returns before
// it is in step.
func (s *Server) Demote(addr string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	s.Do("REPLICAOF", host, port)
}

// Dump makes the engine write everything to its dump, uncompressed, and returns
// that.
func (s *Server) Dump() []byte {
	s.t.Helper()
	for {
		// A replica that attaches makes the engine save in the background.
		if _, err := Try(s.Addr, "SAVE"); err == nil {
			break
		} else if !strings.Contains(err.Error(), "already in progress") {
			s.t.Fatal(err)
		}
		Wait(s.t, "the end of a save in the background", func() bool {
			return strings.Contains(s.Do("INFO", "persistence"), "rdb_bgsave_in_progress:0")
		})
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, "dump.rdb"))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// User makes a user of the engine, with a password and rules such as "~relay:*"
// and "+@read". The default user stays as it is.
func (s *Server) User(name, password string, rules ...string) {
	s.t.Helper()
	s.Do(append([]string{"ACL", "SETUSER", name, "reset", "on", ">" + password}, rules...)...)
}

// Pause stops the engine's process (SIGSTOP): connections stay open, and
// nothing is answered until Continue. It returns when the process has stopped.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatal("the engine does not run")
	}
	if err := pause(s.cmd.Process.Pid); err != nil {
		s.t.Fatal(err)
	}
}

// Continue ends Pause (SIGCONT).
func (s *Server) Continue() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatal("the engine does not run")
	}
	if err := unpause(s.cmd.Process.Pid); err != nil {
		s.t.Fatal(err)
	}
}
