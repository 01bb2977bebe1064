package redisauth_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	client := redistest.Client(t, redistest.Start(t).Addr)
	for _, row := range []struct {
		why  string
		cfg  redisauth.Config
		want string
	}{
		{"the defaults", redisauth.Config{Client: client, Key: key}, ""},
		{"nothing", redisauth.Config{}, "Client is required, Key is required"},
		{"a key that is no AES-256 key", redisauth.Config{Client: client, Key: key[1:]}, "Key is too short"},
		{"a text in place of a key", redisauth.Config{Client: client, Key: append([]byte("0"), key...)}, "Key is too long"},
		{"two hash tags", redisauth.Config{Client: client, Key: key, Prefix: "a}b"}, "Prefix is malformed"},
		{"renewed too late", redisauth.Config{Client: client, Key: key, Lease: time.Second}, "Lease is too short"},
		{"every problem at once", redisauth.Config{Client: client, Key: key, Lease: -1, Timeout: -1, Replicas: -1, MaxFamilies: -1},
			"Lease must not be negative, Timeout must not be negative, Replicas must not be negative, MaxFamilies must not be negative"},
	} {
		_, err := redisauth.New(row.cfg)
		var got []string
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				p, ok := errors.AsType[*redisauth.ConfigError](e)
				if _, isReason := errors.AsType[wsauth.ConfigReason](e); !ok || !isReason {
					t.Fatalf("%s: untyped %v", row.why, e)
				}
				got = append(got, strings.TrimPrefix(p.Error(), "redisauth: Config."))
			}
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
	}
}

// exercise does everything that a node does, and returns the first error.
func exercise(t testing.TB, n *node) error {
	t.Helper()
	i := n.issuer()
	before := time.Now()
	first, err := i.Issue(ctx0, grant("pi-secret-1"))
	if err != nil {
		return err
	}
	if _, err = use(i, first); err != nil {
		return err
	}
	if _, _, err := n.shared.Join(ctx0, wsauth.SessionInfo{ID: "other-1", Identity: wsauth.Identity{Subject: "pi-secret-2"}}, 1, wsauth.OverLimitReplace); err != nil {
		return err
	}
	replaced, _, err := n.shared.Join(ctx0, wsauth.SessionInfo{ID: "other-2", Identity: wsauth.Identity{Subject: "pi-secret-2"}}, 1, wsauth.OverLimitReplace)
	if err != nil || !slices.Equal(replaced, []string{"other-1"}) {
		return fmt.Errorf("replaced %q, %w", replaced, err)
	}
	if _, err := n.shared.Sessions(ctx0); err != nil {
		return err
	}
	if found, err := n.shared.End(ctx0, "other-2"); !found || err != nil {
		return fmt.Errorf("end: %t, %w", found, err)
	}
	for _, id := range []string{"other-1", "other-2"} {
		n.shared.Update(wsauth.SessionInfo{ID: id})
		n.shared.Leave(id)
	}
	if _, err := i.Families(ctx0); err != nil {
		return err
	}
	if err := n.shared.Revoke(ctx0, "pi-secret-3", before); err != nil {
		return err
	}
	if n, err := i.RevokeSubject(ctx0, "pi-secret-1"); n != 1 || err != nil {
		return fmt.Errorf("revoked %d, %w", n, err)
	}
	return nil
}

// The documented commands, and no fewer, are enough for a user of the engine.
func TestFewestRules(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("redisauth.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.ReplaceAll(string(source), "\n// ", " ")
	part := regexp.MustCompile(`the commands (.*?WAIT)\.`).FindStringSubmatch(doc)
	if part == nil {
		t.Fatal("the documentation does not list the commands")
	}
	commands := regexp.MustCompile(`[A-Z]{3,}`).FindAllString(strings.ReplaceAll(part[1], "Config", ""), -1)
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		rules := []string{"~{auth}:*", "+@connection"}
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
		n := startWith(t, client, settings{})
		if err := exercise(t, n); err != nil {
			t.Fatal(err)
		}
		if got := n.state(); got != nil {
			t.Errorf("OnState got %q", got)
		}
		used := server.Do("INFO", "commandstats")
		for _, c := range commands {
			if !strings.Contains(used, "cmdstat_"+strings.ToLower(c)+":") && c != "WAIT" {
				t.Errorf("%s is allowed and not used", c)
			}
		}
		// One command less is an error, and not silence.
		server.Do("ACL", "SETUSER", "relay", "-xread")
		redistest.Wait(t, "an error", func() bool { return len(n.state()) > 0 })
		if got := n.state()[0]; !strings.Contains(got, "NOPERM") {
			t.Error(got)
		}
		server.Do("ACL", "SETUSER", "relay", "+xread")
		redistest.Wait(t, "the end of it", func() bool { return len(n.state()) == 2 })
	})
}

// The files of the engine hold no name of a device and no token.
func TestAtRest(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t, "--appendonly", "yes")
		n := start(t, server.Addr, settings{Config: redisauth.Config{Node: "node-secret"}, gate: wsauth.Config{MaxSessions: 2}})
		i := n.issuer()
		first, err := i.Issue(ctx0, grant("pi-secret"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := use(i, first)
		if err != nil {
			t.Fatal(err)
		}
		n.connect("pi-secret")
		n.lists("node-secret pi-secret")
		if _, err := n.gate.RevokeContext(ctx0, "pi-secret-2", time.Now()); err != nil {
			t.Fatal(err)
		}
		dump := server.Dump()
		for _, found := range []string{"{auth}:revoked", "{auth}:families", "{auth}:n:", "{auth}:s:"} {
			if !bytes.Contains(dump, []byte(found)) {
				t.Errorf("the search is void: %q is not found", found)
			}
		}
		var aof []byte
		for _, f := range readAll(t, server.Dir) {
			aof = append(aof, f...)
		}
		if !bytes.Contains(aof, []byte("{auth}:revoked")) {
			t.Error("the search is void: no append-only file")
		}
		secrets := []string{"secret", "198.51.100.77", "token-of-", first.RefreshToken, second.RefreshToken, first.Token, string(key), "generation"}
		for _, p := range []string{first.RefreshToken, second.RefreshToken} {
			secrets = append(secrets, raw(t, p)...)
		}
		for _, s := range secrets {
			if bytes.Contains(dump, []byte(s)) || bytes.Contains(aof, []byte(s)) {
				t.Errorf("the engine has %q", s)
			}
		}
	})
}

// Out of memory, nothing begins, and everything can be ended.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		a := start(t, server.Addr, settings{Config: redisauth.Config{Node: "a"}})
		b := start(t, server.Addr, settings{Config: redisauth.Config{Node: "b"}})
		i := a.issuer()
		p := a.connect("pi-1-old")
		pair, err := i.Issue(ctx0, grant("pi-1"))
		if err != nil {
			t.Fatal(err)
		}
		server.Do("CONFIG", "SET", "maxmemory", "1")
		if _, err := i.Issue(ctx0, grant("pi-2")); !unavailable(err) || !strings.Contains(err.Error(), "OOM") {
			t.Error(err)
		}
		if q := a.connect("pi-2"); q.s == nil || !q.alive() {
			t.Error("a session is not counted by its node alone")
		}
		if _, err = use(i, pair); err != nil {
			t.Error(err)
		}
		if _, err := b.gate.RevokeContext(ctx0, "pi-1", time.Now()); err != nil {
			t.Error(err)
		}
		redistest.Wait(t, "the end of the permission", func() bool { return !p.alive() })
		if n, err := i.RevokeSubject(ctx0, "pi-1"); n != 1 || err != nil {
			t.Error(n, err)
		}
		server.Do("CONFIG", "SET", "maxmemory", "0")
		if err := a.verify("pi-1"); err != nil {
			t.Error(err)
		}
		if got := append(a.state(), b.state()...); len(got) != 0 {
			t.Errorf("OnState got %q", got)
		}
	})
}

// A cluster whose slot moves, and then loses its owner.
func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		c := e.StartCluster(t, time.Second)
		join := func(name string) *node {
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: c.Addrs(), DisableCache: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			return startWith(t, client, settings{Config: redisauth.Config{Node: name, Timeout: 10 * time.Second}})
		}
		a, b := join("a"), join("b")
		if err := exercise(t, a); err != nil {
			t.Error(err)
		}
		const tag = "{auth}:head"
		source := c.Owner(tag)
		at := slices.Index(c.Servers, source)
		target := c.Servers[(at+1)%3]
		c.Move(tag, target)
		a.connect("pi-1")
		b.lists("a pi-1")
		if _, err := b.gate.RevokeContext(ctx0, "pi-2", time.Now()); err != nil {
			t.Error(err)
		}
		a.refuses("pi-2")
		c.Servers[(at+1)%3+3].InStep(target.Addr)
		target.Kill()
		redistest.Wait(t, "a revocation after the loss of the owner", func() bool {
			_, err := b.gate.RevokeContext(ctx0, "pi-3", time.Now())
			return err == nil
		})
		a.refuses("pi-3")
		a.refuses("pi-2")
		b.lists("a pi-1")
	})
}

// Nothing is left of a node.
func TestNoGoroutineLeft(t *testing.T) {
	server := redistest.Start(t)
	before := runtime.NumGoroutine()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("node", func(t *testing.T) {
		n := startWith(t, client, settings{})
		if err := exercise(t, n); err != nil {
			t.Error(err)
		}
		n.close() // ends Run too
		n.close()
	})
	client.Close()
	redistest.Wait(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

// Whatever an engine answers, it is read or refused.
func FuzzParse(f *testing.F) {
	client := redistest.Client(f, redistest.Start(f).Addr)
	a, err := redisauth.New(redisauth.Config{Client: client, Key: key})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("k", "1-0")
	f.Add("ended", "replaced 1")
	f.Add("removed", "18446744073709551615-0")
	f.Add("1", "9223372036854775808")
	f.Add("x:y:z", strings.Repeat("\x00", 64))
	f.Fuzz(func(t *testing.T, field, value string) {
		for n, err := range redisauth.Parse(a, field, value)[2:] {
			if err == nil {
				t.Errorf("%d: %q was opened as %q", n, value, field)
			}
		}
	})
}

// What two nodes know is the same in either order, and no revocation goes back.
func FuzzMerged(f *testing.F) {
	f.Add(int64(10), int64(1), int64(0), int64(5), int64(2), int64(0))
	f.Add(int64(10), int64(1), int64(0), int64(0), int64(0), int64(3))
	f.Add(int64(10), int64(4), int64(3), int64(5), int64(2), int64(0))
	f.Fuzz(func(t *testing.T, b1, m1, l1, b2, m2, l2 int64) {
		x, y := redisauth.Record{Subject: "s", Before: b1, Made: m1, Lifted: l1}, redisauth.Record{Subject: "s", Before: b2, Made: m2, Lifted: l2}
		for _, n := range []int64{b1, m1, l1, b2, m2, l2} {
			if n < 0 {
				t.Skip()
			}
		}
		xy := x.Merged(y)
		if yx := y.Merged(x); xy != yx {
			t.Fatalf("%+v and %+v", xy, yx)
		}
		if again := xy.Merged(x).Merged(y).Merged(xy); again != xy {
			t.Fatalf("%+v became %+v", xy, again)
		}
		for _, r := range []redisauth.Record{x, y} {
			lifted := max(x.Lifted, y.Lifted)
			if r.Made > lifted && xy.Before < r.Before {
				t.Fatalf("%+v went back to %+v", r, xy)
			}
			if x.Made <= lifted && y.Made <= lifted && xy.Before != 0 {
				t.Fatalf("%+v is not taken back", xy)
			}
		}
	})
}
