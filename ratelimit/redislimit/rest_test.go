package redislimit_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	client := redistest.Client(t, redistest.Start(t).Addr)
	for _, row := range []struct {
		why  string
		cfg  redislimit.Config
		want string
	}{
		{"the defaults", redislimit.Config{Client: client, Key: key}, ""},
		{"nothing", redislimit.Config{}, "Client is required, Key is required"},
		{"a key that is no AES-256 key", redislimit.Config{Client: client, Key: key[1:]}, "Key is too small"},
		{"a text in place of a key", redislimit.Config{Client: client, Key: append([]byte("0"), key...)}, "Key is too large"},
		{"two hash tags", redislimit.Config{Client: client, Key: key, Prefix: "a}b"}, "Prefix is malformed"},
		{"a lease that a busy node loses", redislimit.Config{Client: client, Key: key, Lease: time.Second}, "Lease is too small"},
		{"every problem at once", redislimit.Config{Client: client, Key: key, Lease: -1, Timeout: -1}, "Lease is too small, Timeout is too small"},
	} {
		_, err := redislimit.New(row.cfg)
		var got []string
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				p, ok := errors.AsType[*redislimit.ConfigError](e)
				if _, isReason := errors.AsType[ratelimit.ConfigReason](e); !ok || !isReason {
					t.Fatalf("%s: untyped %v", row.why, e)
				}
				got = append(got, strings.TrimPrefix(p.Error(), "redislimit: Config."))
			}
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
	}
}

// exercise does everything that a node does, and returns the first error.
func exercise(n *node) error {
	var slots []*ratelimit.Slot
	for _, addr := range []netip.Addr{alice, bob, clerk} {
		some, d := n.admit(addr, 2)
		if slots = append(slots, some...); len(some) != 2 || d.Local {
			return fmt.Errorf("%v: %+v", addr, d)
		}
	}
	slot, d := n.lim.Admit(ratelimit.Key{Addr: alice, ID: "account-of-carol"})
	if !d.Allowed || d.Local {
		return fmt.Errorf("an account: %+v", d)
	}
	slot.Release()
	for range 2 {
		n.lim.Fail(ratelimit.Key{Addr: alice})
		n.lim.Fail(ratelimit.Key{ID: "account-of-carol"})
	}
	if _, blocked := n.lim.BlockedUntil(ratelimit.Key{Addr: alice}); !blocked {
		return errors.New("no penalty")
	}
	n.lim.Fail(ratelimit.Key{Addr: clerk})
	n.lim.Forgive(ratelimit.Key{Addr: clerk})
	if err := n.lim.Block(office, time.Time{}); err != nil {
		return err
	}
	if err := n.lim.Block(netip.MustParsePrefix("2001:db8:7:7::/64"), time.Now().Add(300*time.Millisecond)); err != nil {
		return err
	}
	n.lim.Unblock(office)
	if err := n.lim.Block(office, time.Now().Add(time.Hour)); err != nil {
		return err
	}
	slots[0].Release()
	n.settle()
	return nil
}

// The documented commands, and no fewer, are enough for a user of the engine.
func TestFewestRules(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("redislimit.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.ReplaceAll(string(source), "\n// ", " ")
	part := regexp.MustCompile(`the commands (.*?ZREMRANGEBYSCORE)\.`).FindStringSubmatch(doc)
	if part == nil {
		t.Fatal("the documentation does not list the commands")
	}
	commands := regexp.MustCompile(`[A-Z]{3,}`).FindAllString(part[1], -1)
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		rules := []string{"~limit:*", "+@connection"}
		for _, c := range commands {
			rules = append(rules, "+"+strings.ToLower(c))
		}
		server.User("relay", "secret", rules...)
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{server.Addr}, Username: "relay", Password: "secret", DisableCache: true, ForceSingleClient: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		n := prepare(t, client, settings{limits: ratelimit.Config{Limit: 3, Penalty: ratelimit.Penalty{Failures: 2}}})
		n.meets()
		if err := exercise(n); err != nil {
			t.Fatal(err)
		}
		redistest.Wait(t, "the end of a block", func() bool { return strings.Contains(server.Do("INFO", "commandstats"), "cmdstat_hdel:") })
		if got := n.state(); got != nil {
			t.Errorf("OnState got %q", got)
		}
		used := server.Do("INFO", "commandstats")
		for _, c := range commands {
			if !strings.Contains(used, "cmdstat_"+strings.ToLower(c)+":") && c != "ZREM" && c != "ZCOUNT" {
				t.Errorf("%s is allowed and not used", c)
			}
		}
		// One command less is an error, and not silence.
		server.Do("ACL", "SETUSER", "relay", "-hmget")
		redistest.Wait(t, "an error", func() bool { return len(n.state()) > 0 })
		if got := n.state()[0]; !strings.Contains(got, "can't run this command") {
			t.Error(got)
		}
		server.Do("ACL", "SETUSER", "relay", "+hmget")
		redistest.Wait(t, "the end of it", func() bool { return len(n.state()) >= 2 && !n.shared.Stats().Down })
	})
}

// The engine's dump has no address and no name of an account.
func TestAtRest(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, settings{limits: ratelimit.Config{Limit: 3, Penalty: ratelimit.Penalty{Failures: 2}}})
		if err := exercise(n); err != nil {
			t.Fatal(err)
		}
		dump := server.Dump()
		if !bytes.Contains(dump, []byte("limit:{limit}:records")) || !bytes.Contains(dump, []byte(n.shared.KeyOf(ratelimit.Client{Network: ratelimit.Fold(bob)}))) {
			t.Fatal("the dump is not that of the limits")
		}
		secrets := []string{"account-of-carol", string(key)}
		for _, addr := range []netip.Addr{alice, bob, clerk, office.Addr(), netip.MustParseAddr("2001:db8:7:7::")} {
			network := ratelimit.Fold(addr).Addr()
			raw := network.AsSlice()
			if network.Is6() {
				raw = raw[:8]
			}
			secrets = append(secrets, addr.String(), network.String(), string(raw), hex.EncodeToString(raw))
		}
		for _, secret := range secrets {
			if bytes.Contains(dump, []byte(secret)) {
				t.Errorf("the dump contains %q", secret)
			}
		}
	})
}

// A client takes at most 160 bytes of the engine by its own count, and 176 by
// the growth of its memory.
func TestMemory(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		n := start(t, server.Addr, settings{})
		used := func() int {
			m := regexp.MustCompile(`used_memory_dataset:(\d+)`).FindStringSubmatch(server.Do("INFO", "memory"))
			total, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return total
		}
		n.must(bob, 1)
		before, overhead := used(), overheadOf(t, server)
		const clients = 4_000 // the tables of the engine have 4,096 places
		var many sync.WaitGroup
		for i := range byte(40) {
			many.Go(func() {
				for j := range byte(100) {
					if _, d := n.lim.Admit(ratelimit.Key{Addr: netip.AddrFrom4([4]byte{10, 0, i, j})}); !d.Allowed || d.Local {
						t.Errorf("%+v", d)
					}
				}
			})
		}
		many.Wait()
		each := (used() - before + overheadOf(t, server) - overhead) / clients
		own, err := strconv.Atoi(server.Do("MEMORY", "USAGE", n.shared.KeyOf(ratelimit.Client{Network: ratelimit.Fold(bob)})))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes by MEMORY USAGE, %d by the growth of the memory", own, each)
		if own > 160 || each > 176 {
			t.Errorf("a client takes %d bytes, %d by the growth of the memory", own, each)
		}
	})
}

// overheadOf returns the memory of the tables of keys.
func overheadOf(t *testing.T, server *redistest.Server) int {
	lines := strings.Split(server.Do("MEMORY", "STATS"), "\n")
	total := 0
	for i, line := range lines {
		if strings.HasPrefix(line, "overhead.hashtable") && i+1 < len(lines) {
			n, err := strconv.Atoi(strings.TrimSpace(lines[i+1]))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			total += n
		}
	}
	if total == 0 {
		t.Fatalf("no tables: %q", lines)
	}
	return total
}

// The engine forgets clients by itself, as soon as they have neither a window
// nor connections.
func TestForgotten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := start(t, server.Addr, settings{limits: ratelimit.Config{Limit: 3, Window: 50 * time.Millisecond}})
	ttl := func() int {
		keys := clientKeys(server)
		if len(keys) == 0 {
			return -2
		}
		ms, err := strconv.Atoi(server.Do("PTTL", keys[0]))
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
	slots := n.must(alice, 2)
	// The engine counts PTTL from a time that can be some milliseconds older
	// than that of TIME.
	if ms := ttl(); ms <= 50 || ms > 3_601_000 {
		t.Errorf("a client with connections lives for %d ms", ms)
	}
	for _, slot := range slots {
		slot.Release()
	}
	n.settle()
	redistest.Wait(t, "an engine without clients", func() bool { return len(clientKeys(server)) == 0 })
	if n.shared.Known() != 0 {
		t.Error("the node still knows a client")
	}
}

// What another key has sealed is told, and stops no one from deciding alone.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := start(t, server.Addr, settings{})
	if err := a.lim.Block(office, time.Time{}); err != nil {
		t.Fatal(err)
	}
	b := prepare(t, server.Client(), settings{Config: redislimit.Config{Key: bytes.Repeat([]byte{6}, redislimit.KeySize)}})
	redistest.Wait(t, "an error", func() bool { return len(b.state()) > 0 })
	if got := b.state()[0]; !strings.Contains(got, "Config.Key") {
		t.Error(got)
	}
	if _, d := b.admit(alice, 1); !d.Allowed || !d.Local {
		t.Errorf("%+v", d)
	}
}
