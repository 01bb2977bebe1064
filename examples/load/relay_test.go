//go:build unix

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
	"github.com/relayguard/relayguard/internal/selfsigned"
)

// relay is a real server, as a process.
type relay struct {
	url, token string
	cmd        *exec.Cmd
}

// buildRelay returns the path of the server's program.
func buildRelay(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	if out, err := exec.Command("go", "build", "-o", binary, "../server").CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	return binary
}

// startRelay runs the server, with more variables, until the test ends.
func startRelay(t testing.TB, binary string, more ...string) *relay {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeport.Addr(t))
	env := append([]string{"JWT_SECRET=tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID=pi-1", "OPERATOR_ADDR=", "UPGRADES_PER_SECOND=0", "PORT=" + port}, more...)

	cmd := exec.Command(binary)
	cmd.Env = env
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, read := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if strings.Contains(lines.Text(), "msg=listening") {
				listening <- true
			}
		}
		close(listening)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("the server ended with %v", err)
		}
	})
	if !<-listening {
		t.Fatal("the server does not listen")
	}
	make := exec.Command(binary, "token")
	make.Env = env
	out, err := make.Output()
	if err != nil {
		t.Fatal(err)
	}
	return &relay{fmt.Sprintf("ws://127.0.0.1:%s/ws", port), strings.TrimSpace(string(out)), cmd}
}

func TestRelay(t *testing.T) {
	t.Parallel()
	s := startRelay(t, buildRelay(t))
	pid := s.cmd.Process.Pid
	common := []string{"-url", s.url, "-token", s.token, "-wait", "1m"}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		common = append(common, "-server-pid", strconv.Itoa(pid))
	} else {
		pid = 0
	}
	t.Run("fanout", func(t *testing.T) {
		r, code, words := measured(t, append(common, "-viewers", "50", "-for", "1s", "-slow", "4%")...)
		if code != exitOK || r.Published != 25 || r.Expected != 48*25 || r.Deliveries != r.Expected || r.Slow != 2 {
			t.Errorf("exit code %d, %s%+v", code, words, r)
		}
		if pid != 0 && (r.RSSStart == 0 || r.RSSMax < r.RSSStart) {
			t.Errorf("memory %d, at most %d", r.RSSStart, r.RSSMax)
		}
	})
	t.Run("storm", func(t *testing.T) {
		r, code, words := measured(t, append(common, "-viewers", "50", "-storm", "-history", "300")...)
		if code != exitOK || r.Published != 300 || r.Deliveries != 50*300 || r.Complete.Max <= 0 {
			t.Errorf("exit code %d, %s%+v", code, words, r)
		}
	})
	t.Run("newcomers with compression", func(t *testing.T) {
		common := append(common, "-viewers", "50", "-storm", "-history", "1000", "-size", "60")
		plain, _, words := measured(t, common...)
		r, code, more := measured(t, append(common, "-deflate")...)
		if code != exitOK || r.Published != 1000 || plain.Deliveries < 50*1000 || r.Deliveries < 50*1000 {
			t.Errorf("exit code %d, %s%s%+v", code, words, more, r)
		}
		if r.Bytes*2 > plain.Bytes {
			t.Errorf("%d bytes, without compression %d", r.Bytes, plain.Bytes)
		}
	})
	t.Run("events", func(t *testing.T) {
		r, code, words := measured(t, append(common, "-events", "-viewers", "50", "-for", "1s", "-slow", "4%")...)
		if code != exitOK || r.Published != 25 || r.Deliveries != 48*25 || r.Slow != 2 {
			t.Errorf("exit code %d, %s%+v", code, words, r)
		}
	})
	t.Run("idle", func(t *testing.T) {
		r, code, words := measured(t, append(common, "-viewers", "50", "-idle", "-for", "100ms")...)
		if code != exitOK || r.Connected != 50 || r.Expected != 0 {
			t.Errorf("exit code %d, %s%+v", code, words, r)
		}
	})
	t.Run("in one address", func(t *testing.T) { // more than the server's limit for one client
		_, code, words := measured(t, append(common, "-viewers", "50", "-sources", "1", "-idle", "-for", "1ms")...)
		if code != exitFailed || !strings.Contains(words, "RATE_LIMIT_CONNECTIONS") {
			t.Errorf("exit code %d, %s", code, words)
		}
	})
}

// Over a Unix socket, load sends the addresses of its viewers as a proxy does.
func TestRelayOnUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.ShortDir(t), "relay.sock")
	s := startRelay(t, buildRelay(t), "HOST=unix:"+path)
	common := []string{"-url", s.url, "-unix", path, "-token", s.token, "-wait", "1m", "-viewers", "50"}
	r, code, words := measured(t, append(common, "-for", "1s", "-slow", "4%")...)
	if code != exitOK || r.Published != 25 || r.Deliveries != 48*25 || r.Slow != 2 {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
	_, code, words = measured(t, append(common, "-sources", "1", "-idle", "-for", "1ms")...)
	if code != exitFailed || !strings.Contains(words, "RATE_LIMIT_CONNECTIONS") {
		t.Errorf("in one address: exit code %d, %s", code, words)
	}
}

// Over TLS, load believes only the given authority.
func TestRelayOverTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	s := startRelay(t, buildRelay(t), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key)
	url := "wss" + strings.TrimPrefix(s.url, "ws")
	common := []string{"-url", url, "-token", s.token, "-wait", "1m", "-viewers", "50", "-for", "1s"}
	r, code, words := measured(t, append(common, "-ca", cert, "-slow", "4%")...)
	if code != exitOK || r.Published != 25 || r.Deliveries != 48*25 || r.Slow != 2 {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
	other, _ := certificate(t)
	if _, code, words = measured(t, append(common, "-ca", other)...); code != exitFailed || !strings.Contains(words, "certificate") {
		t.Errorf("another authority: exit code %d, %s", code, words)
	}
	for says, ca := range map[string]string{"-url must be": "", "no such file": cert + "x", "no certificate in PEM": key} {
		var out, errs strings.Builder
		if code := run(t.Context(), append(common, "-ca", ca), "", &out, &errs); code != exitUsage || !strings.Contains(errs.String(), says) {
			t.Errorf("-ca %q: exit code %d, %s", ca, code, &errs)
		}
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	cert, key, err := selfsigned.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
