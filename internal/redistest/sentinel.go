package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sentinels are three Sentinels that watch a master with one replica. Two of
// them must agree that the master is down.
type Sentinels struct {
	Addrs           []string
	Name            string    // of the master, for clients
	Master, Replica *Server   // as they were at the start
	Servers         []*Server // the Sentinels themselves

	t testing.TB
}

// StartSentinels starts a master with options, its replica and three Sentinels,
// and waits until they could fail over. They take the master for down if it
// does not answer for as long as downAfter.
func (e Engine) StartSentinels(t testing.TB, downAfter time.Duration, options ...string) *Sentinels {
	t.Helper()
	s := &Sentinels{Name: "relay", t: t}
	s.Master = e.Start(t, options...)
	s.Replica = e.Replica(t, s.Master.Addr, options...)
	// Each is told of the others, since they would take seconds to find them.
	const id = "%040x"
	known := ""
	for i := range 3 {
		one := e.start(t, func(dir string) []string {
			return []string{s.config(dir, fmt.Sprintf(id, i+1), downAfter, known), "--sentinel"}
		})
		s.Servers, s.Addrs = append(s.Servers, one), append(s.Addrs, one.Addr)
		known += fmt.Sprintf("sentinel known-sentinel %s %s "+id+"\n", s.Name, spaced(one.Addr), i+1)
	}
	for _, addr := range s.Addrs {
		Wait(t, "the Sentinel at "+addr+" knows the others and the replica, and could fail over", func() bool {
			quorum, err := Try(addr, "SENTINEL", "CKQUORUM", s.Name)
			replicas, _ := Try(addr, "SENTINEL", "REPLICAS", s.Name)
			return err == nil && strings.HasPrefix(quorum, "OK 3 ") &&
				strings.Contains(replicas, s.Replica.Addr) && strings.Contains(replicas, "\nmaster-link-status\nok\n")
		})
	}
	return s
}

// config writes a Sentinel's file. A Sentinel writes to it too.
func (s *Sentinels) config(dir, id string, downAfter time.Duration, known string) string {
	s.t.Helper()
	path := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf(`sentinel myid %s
sentinel monitor %s %s 2
sentinel down-after-milliseconds %[2]s %[4]d
sentinel failover-timeout %[2]s 10000
sentinel known-replica %[2]s %[5]s
%[6]s`, id, s.Name, spaced(s.Master.Addr), downAfter.Milliseconds(), spaced(s.Replica.Addr), known)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// spaced returns an address as engines' commands have it.
func spaced(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return host + " " + port
}

// Current returns the address of the master, as the Sentinels say now.
func (s *Sentinels) Current() string {
	s.t.Helper()
	for _, addr := range s.Addrs {
		if answer, err := Try(addr, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Name); err == nil {
			return strings.Replace(answer, "\n", ":", 1)
		}
	}
	s.t.Fatal("no Sentinel answers")
	return ""
}
