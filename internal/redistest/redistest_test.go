package redistest_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func TestReplica(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		master := e.Start(t)
		link := redistest.Forward(t, master.Addr)
		replica := e.Replica(t, link.Addr)
		master.Do("SET", "k", "1")
		replica.InStep(master.Addr)
		if got := replica.Do("GET", "k"); got != "1" {
			t.Fatalf("in step, but has %q", got)
		}
		link.HoldAnswers()
		master.Do("SET", "k", "2") // what the replica must not see
		master.Kill()
		replica.Promote()
		if got := replica.Do("GET", "k"); got != "1" {
			t.Errorf("the replica has %q, which was held", got)
		}
		replica.Do("SET", "k", "3")
		master.Restart()
		master.Demote(replica.Addr)
		master.InStep(replica.Addr)
		if got := master.Do("GET", "k"); got != "3" {
			t.Errorf("the demoted master has %q", got)
		}
		if !strings.Contains(string(replica.Dump()), "k\xc0\x03") { // 3 as an integer
			t.Error("the dump does not have the key")
		}
	})
}

// echo answers everything with itself.
func echo(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				data := make([]byte, 100)
				for n, err := conn.Read(data); err == nil; n, err = conn.Read(data) {
					_, _ = conn.Write(data[:n])
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func TestProxy(t *testing.T) {
	t.Parallel()
	p := redistest.Forward(t, echo(t))
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	get := func(conn net.Conn, wait time.Duration) string {
		t.Helper()
		data := make([]byte, 100)
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(data)
		if err != nil {
			return "error"
		}
		return string(data[:n])
	}
	send := func(conn net.Conn, text string) { _, _ = conn.Write([]byte(text)) }
	const briefly, long = 50 * time.Millisecond, 30 * time.Second

	conn := dial()
	send(conn, "a")
	if got := get(conn, long); got != "a" {
		t.Fatal(got)
	}
	for name, hold := range map[string]func(){"both": p.Hold, "answers": p.HoldAnswers} {
		hold()
		send(conn, "b")
		if got := get(conn, briefly); got != "error" {
			t.Errorf("hold %s: got %q", name, got)
		}
		p.Release()
		if got := get(conn, long); got != "b" {
			t.Errorf("after hold %s: got %q", name, got)
		}
	}
	p.Hold()
	held := dial()
	send(held, "c")
	redistest.Wait(t, "the new connection is accepted", func() bool { return p.Conns() == 2 })
	p.Cut()
	p.Release()
	for _, c := range []net.Conn{conn, held} {
		if got := get(c, long); got != "error" {
			t.Errorf("after Cut: got %q", got)
		}
	}
	redistest.Wait(t, "the connections are gone", func() bool { return p.Conns() == 0 })
	p.Refuse()
	if got := get(dial(), long); got != "error" {
		t.Errorf("refused: got %q", got)
	}
	p.Accept()
	p.Target(redistest.Start(t).Addr)
	conn = dial()
	send(conn, "PING\r\n")
	if got := get(conn, long); got != "+PONG\r\n" {
		t.Errorf("after Target: got %q", got)
	}
}

func TestPauseAndRestart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s.Do("SET", "k", "v")
	s.Pause()
	conn, err := net.Dial("tcp", s.Addr) // by the kernel
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("GET k\r\n"))
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	answer := make([]byte, 100)
	if n, err := conn.Read(answer); err == nil {
		t.Errorf("paused, but answers %q", answer[:n])
	}
	s.Continue()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, _ := conn.Read(answer); string(answer[:n]) != "$1\r\nv\r\n" {
		t.Errorf("continued, but answers %q", answer[:n])
	}
	s.Pause()
	s.Kill() // also while it is stopped
	if _, err := redistest.Try(s.Addr, "PING"); err == nil {
		t.Error("killed, but answers")
	}
	s.Restart()
	if got := s.Do("GET", "k"); got != "v" {
		t.Errorf("restarted with %q", got)
	}
}

func TestSentinels(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		s := e.StartSentinels(t, 500*time.Millisecond)
		if got := s.Current(); got != s.Master.Addr {
			t.Fatalf("the master is %s, want %s", got, s.Master.Addr)
		}
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: s.Addrs, Sentinel: rueidis.SentinelOption{MasterSet: s.Name}, DisableCache: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		s.Master.Kill()
		redistest.Wait(t, "the Sentinels fail over", func() bool { return s.Current() == s.Replica.Addr })
		ctx := context.Background()
		redistest.Wait(t, "the client writes again", func() bool {
			return client.Do(ctx, client.B().Set().Key("k").Value("v").Build()).Error() == nil
		})
		if got := s.Replica.Do("GET", "k"); got != "v" {
			t.Errorf("the promoted replica has %q", got)
		}
	})
}

func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		c := e.StartCluster(t, time.Second)
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: c.Addrs(), DisableCache: true})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx := context.Background()
		set := func(value string) error {
			return client.Do(ctx, client.B().Set().Key("{room}:k").Value(value).Build()).Error()
		}
		if err := set("1"); err != nil {
			t.Fatal(err)
		}
		owner := c.Owner("{room}:k")
		to := c.Servers[0]
		if owner == to {
			to = c.Servers[1]
		}
		c.Move("{room}:k", to)
		if got := to.Do("GET", "{room}:k"); got != "1" || c.Owner("{room}:other") != to {
			t.Errorf("after the move: %q", got)
		}
		if err := set("2"); err != nil {
			t.Error(err)
		}
		to.Kill()
		redistest.Wait(t, "a replica takes over", func() bool { return set("3") == nil })
		if now := c.Owner("{room}:k"); now == to || now.Do("GET", "{room}:k") != "3" {
			t.Error("the owner that was killed has the slot")
		}
	})
}

func TestCPU(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		s := e.Start(t)
		before := s.CPU()
		if before <= 0 {
			t.Errorf("an engine that runs has used %v", before)
		}
		redistest.Wait(t, "commands take CPU time", func() bool {
			s.Do("INFO", "everything")
			return s.CPU() > before
		})
	})
}

func TestTLSAndUser(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		s, secure := e.StartTLS(t)
		s.User("relay", "secret", "~relay:*", "+@read", "+@connection")
		s.Do("SET", "relay:k", "v")
		s.Do("SET", "other", "v")
		option := rueidis.ClientOption{
			InitAddress: []string{secure.Addr}, TLSConfig: secure.Config, Username: "relay", Password: "secret", DisableCache: true, ForceSingleClient: true,
		}
		client, err := rueidis.NewClient(option)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		get := func(key string) (string, error) {
			return client.Do(context.Background(), client.B().Get().Key(key).Build()).ToString()
		}
		if got, err := get("relay:k"); got != "v" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := get("other"); err == nil || !strings.Contains(err.Error(), "permission") {
			t.Errorf("a key that the user may not read: %v", err)
		}
		option.TLSConfig = secure.Config.Clone()
		option.TLSConfig.RootCAs = nil
		if _, err := rueidis.NewClient(option); err == nil {
			t.Error("the certificate is trusted without its file")
		}
		if _, err := os.Stat(secure.CertFile); err != nil || filepath.Dir(secure.CertFile) == s.Dir {
			t.Error(err)
		}
	})
}
