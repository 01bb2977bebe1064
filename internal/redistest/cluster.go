package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/freeport"
)

// Cluster is a cluster of three masters with a replica each.
type Cluster struct {
	Servers []*Server // Servers[i+3] is the first replica of Servers[i]

	t testing.TB
}

// slots is the number of slots of every cluster.
const slots = 16384

// StartCluster starts a cluster, and waits until it serves all slots and every
// replica is in step. A replica takes over if its master does not answer for as
// long as nodeTimeout, and a little more.
func (e Engine) StartCluster(t testing.TB, nodeTimeout time.Duration, options ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for i := range 6 {
		_, bus, _ := strings.Cut(freeport.Addr(t), ":")
		s := e.Start(t, append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", strconv.FormatInt(nodeTimeout.Milliseconds(), 10),
			"--cluster-port", bus, "--cluster-config-file", "nodes.conf",
			// With the default, a replica that lags does not take over.
			"--cluster-replica-validity-factor", "0",
		}, options...)...)
		c.Servers = append(c.Servers, s)
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < 3 {
			s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/3), strconv.Itoa((i+1)*slots/3-1))
		}
		if i > 0 {
			s.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(c.Servers[0].Port()), c.Servers[0].Do("CONFIG", "GET", "cluster-port")[len("cluster-port\n"):])
		}
	}
	c.await("knows the others", func(s *Server, info string) bool {
		return field(info, "cluster_state") == "ok" && field(info, "cluster_known_nodes") == "6"
	})
	for i, s := range c.Servers[3:] {
		id := c.Servers[i].Do("CLUSTER", "MYID")
		Wait(t, "a replica takes its master", func() bool { _, err := Try(s.Addr, "CLUSTER", "REPLICATE", id); return err == nil })
	}
	for i, s := range c.Servers[3:] {
		s.InStep(c.Servers[i].Addr)
	}
	c.await("knows who replicates", func(s *Server, _ string) bool {
		nodes, _ := Try(s.Addr, "CLUSTER", "NODES")
		return strings.Count(nodes, "slave ") == 3 && !strings.Contains(nodes, "fail")
	})
	return c
}

func (c *Cluster) await(what string, done func(s *Server, info string) bool) {
	c.t.Helper()
	for _, s := range c.Servers {
		Wait(c.t, "the engine at "+s.Addr+" of the cluster "+what, func() bool {
			info, err := Try(s.Addr, "CLUSTER", "INFO")
			return err == nil && done(s, info)
		})
	}
}

// Addrs returns the addresses of the engines.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addrs[i] = s.Addr
	}
	return addrs
}

// Slot returns the number of the slot in which key is.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	slot, err := strconv.Atoi(c.any().Do("CLUSTER", "KEYSLOT", key))
	if err != nil {
		c.t.Fatal(err)
	}
	return slot
}

// any returns an engine that runs.
func (c *Cluster) any() *Server {
	c.t.Helper()
	for _, s := range c.Servers {
		if _, err := Try(s.Addr, "PING"); err == nil {
			return s
		}
	}
	c.t.Fatal("no engine of the cluster answers")
	return nil
}

// Owner returns the master that has the slot of key. After a failover it waits
// until the engine that it asks has heard of it.
func (c *Cluster) Owner(key string) (owner *Server) {
	c.t.Helper()
	slot := c.Slot(key)
	Wait(c.t, fmt.Sprint("a master has the slot ", slot), func() bool {
		owner = c.master(slot)
		return owner != nil
	})
	return owner
}

// master returns the master that has the slot, or nil if the engine that it asks
// knows none.
func (c *Cluster) master(slot int) *Server {
	c.t.Helper()
	for line := range strings.Lines(c.any().Do("CLUSTER", "NODES")) {
		words := strings.Fields(line)
		if len(words) < 9 || strings.Contains(words[2], "fail") {
			continue
		}
		for _, part := range words[8:] {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, ferr := strconv.Atoi(first)
			to, terr := strconv.Atoi(last)
			if ferr != nil || terr != nil || slot < from || slot > to {
				continue
			}
			for _, s := range c.Servers {
				if strings.HasPrefix(words[1], s.Addr+"@") {
					return s
				}
			}
		}
	}
	return nil
}

// Move moves the slot of key, with all its keys, to another master. Clients may
// use the keys meanwhile.
func (c *Cluster) Move(key string, to *Server) {
	c.t.Helper()
	from, slot := c.Owner(key), strconv.Itoa(c.Slot(key))
	source, target := from.Do("CLUSTER", "MYID"), to.Do("CLUSTER", "MYID")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	for {
		keys := from.Do("CLUSTER", "GETKEYSINSLOT", slot, "100")
		if keys == "" {
			break
		}
		from.Do(append([]string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.Port()), "", "0", "10000", "KEYS"}, strings.Split(keys, "\n")...)...)
	}
	for _, s := range []*Server{to, from} { // in this order, as redis-cli does it
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", target)
	}
	Wait(c.t, fmt.Sprintf("the cluster knows that slot %s has moved", slot), func() bool { return c.Owner(key) == to })
}

// State returns the state of the cluster as the engine sees it: "ok" or "fail".
func (s *Server) State() string {
	info, _ := Try(s.Addr, "CLUSTER", "INFO")
	return field(info, "cluster_state")
}
