//go:build unix

package main

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/internal/freeport"
)

// supervised runs the server, and runs it again after it has ended. It returns
// the first process's id, and a function that ends the last one.
func supervised(t *testing.T, env ...string) (url string, pid int, stop func()) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "server")
	if out, err := exec.Command("go", "build", "-o", binary, "../server").CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	_, port, _ := net.SplitHostPort(freeport.Addr(t))
	start := func() (*exec.Cmd, chan error) {
		cmd := exec.Command(binary)
		cmd.Env = append([]string{"JWT_SECRET=tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID=pi-1", "OPERATOR_ADDR=", "PORT=" + port}, env...)
		log, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		listening, ended := make(chan bool, 1), make(chan error, 1)
		go func() {
			for lines := bufio.NewScanner(log); lines.Scan(); {
				if strings.Contains(lines.Text(), "msg=listening") {
					listening <- true
				}
			}
			close(listening)
			ended <- cmd.Wait()
		}()
		if !<-listening {
			t.Error("the server does not listen")
		}
		return cmd, ended
	}
	first, ended := start()
	if first == nil {
		t.FailNow()
	}
	again, done := make(chan *exec.Cmd, 1), make(chan struct{})
	go func() {
		defer close(done)
		if err := <-ended; err != nil {
			t.Errorf("the first server ended with %v", err)
		}
		second, ended := start()
		again <- second
		if err := <-ended; err != nil {
			t.Errorf("the second server ended with %v", err)
		}
	}()
	return "ws://127.0.0.1:" + port + "/ws", first.Process.Pid, func() {
		_ = (<-again).Process.Signal(syscall.SIGTERM)
		<-done
	}
}

// All viewers come back to a server that was restarted, none before its time,
// and not all at once.
func TestRestart(t *testing.T) {
	t.Parallel()
	const viewers, perSecond = 40, 10 // half of UPGRADES_PER_SECOND
	url, pid, stop := supervised(t, "UPGRADES_PER_SECOND="+strconv.Itoa(2*perSecond))
	defer stop()
	r, code, words := measured(t, "-url", url, "-restart", "-viewers", strconv.Itoa(viewers), "-server-pid", strconv.Itoa(pid), "-wait", "1m")
	if code != exitOK || r.Mode != modeRestart || r.Connected != viewers || r.Untold != 0 {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
	// The first may come after two seconds, and the last after five.
	if r.Complete.P50 < 2000 || r.Complete.Max < 5000 {
		t.Errorf("back after %+v", r.Complete)
	}
	if r.PeakReturns < 1 || r.PeakReturns == viewers {
		t.Errorf("%d in one second", r.PeakReturns)
	}
}

// A server that says nothing is a failure.
func TestRestartUntold(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	helper := exec.Command("sleep", "60") // gets the SIGTERM
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = helper.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.viewers {
			c.Write(serverFrame(0x88, "\x03\xe9server stopping"))
		}
	}()
	r, code, words := measured(t, "-url", f.url(), "-restart", "-viewers", "3", "-sources", "0", "-server-pid", strconv.Itoa(helper.Process.Pid), "-wait", "1m")
	if code != exitFailed || r.Untold != 3 || r.Connected != 3 || !strings.Contains(words, "not told when") {
		t.Errorf("exit code %d, %s%+v", code, words, r)
	}
}
