package redislimit_test

import (
	"bufio"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// engineOfChild is the address of the engine for TestPausedChild.
const engineOfChild = "REDISLIMIT_TEST_ENGINE"

// TestPausedChild is the process that TestPausedNode stops.
func TestPausedChild(t *testing.T) {
	addr := os.Getenv(engineOfChild)
	if addr == "" {
		return // only TestPausedNode sets it
	}
	n := start(t, addr, settings{limits: open, Config: redislimit.Config{Lease: 2 * time.Second}})
	slots := n.must(alice, 2)
	n.settle()
	os.Stdout.WriteString("open\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for _, slot := range slots {
		slot.Release()
	}
	n.settle()
}

// A process that was stopped for longer than its lease adds its connections
// again as soon as it goes on.
func TestPausedNode(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	child := exec.Command(os.Args[0], "-test.run=^TestPausedChild$")
	child.Env = append(os.Environ(), engineOfChild+"="+server.Addr)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill() }) // it may have ended
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	b := start(t, server.Addr, settings{limits: open})
	b.says(alice, ratelimit.ReasonOpen)
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.says(alice, ratelimit.ReasonNone)
	b.must(alice, 1)
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.says(alice, ratelimit.ReasonOpen)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	b.says(alice, ratelimit.ReasonNone)
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}
