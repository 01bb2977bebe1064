package main

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// If a file cannot grow, the process under test must see a failed write, and
// not end by the signal that comes with it.
func init() {
	if os.Getenv("RELAYGUARD_TEST_MAIN") != "" {
		signal.Ignore(syscall.SIGXFSZ)
	}
}

// room limits every file of p to limit bytes, as a full disk would.
func (p *process) room(limit uint64) {
	p.t.Helper()
	var r unix.Rlimit
	err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, nil, &r)
	if r.Cur = min(limit, r.Max); err == nil {
		err = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &r, nil)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// A restart signal clears the history on disk while the server has no
// descriptors left, and its publisher goes on.
func TestRestartSignalWithoutDescriptors(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "history")
	s, p := serving(t, durable(t, dir))
	device := s.publisher()
	device.publish("a")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, fd := range open {
		used[fd.Name()] = true
	}
	first := 0
	for used[strconv.Itoa(first)] {
		first++
	}
	var r unix.Rlimit
	err = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &r)
	before := r
	// No number is left that is free. Files with higher ones stay open.
	if r.Cur = uint64(first); err == nil {
		err = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &r, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		id := fmt.Sprint("r", i)
		device.send(fmt.Sprintf(`{"text":"","id":%q,"status":{"is_restarting":true}}`, id))
		device.await(func(m map[string]any) bool { return m["ack"] == id })
		device.publish(fmt.Sprint("after ", i))
	}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wait() // all that the server has logged is read
	if told := p.stderr.Events("the history is in memory only, since the disk fails; it is written anew when the disk recovers"); len(told) > 0 {
		t.Errorf("the disk is told to fail:\n%s", p.stderr)
	}
	s, _ = serving(t, durable(t, dir))
	s.shows("after 2")
}

// While the disk fails, the relay goes on in memory and reports that. When the
// disk recovers, the relay writes the whole history.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	const failing, recovered = "the history is in memory only, since the disk fails; it is written anew when the disk recovers", "the history is on disk again"
	env := durable(t, filepath.Join(t.TempDir(), "history"), "OPERATOR_ADDR=127.0.0.1:"+freePort(t))
	s, p := serving(t, env)
	ready := func() string {
		res, body := s.get("/readyz")
		if res.StatusCode != 200 {
			t.Errorf("/readyz: %d %q, want 200 whatever the disk does", res.StatusCode, body)
		}
		return body
	}
	viewer, device := s.viewer(), s.publisher()
	device.publish("a")
	if got := ready(); got != "ready\n" {
		t.Errorf("/readyz: %q, want ready", got)
	}
	p.room(100)
	device.publish("b", "c", "d")
	if texts, _ := viewer.texts(4); texts[3] != "d" {
		t.Errorf("the viewer got %q", texts)
	}
	if got := ready(); got != "degraded\n" {
		t.Errorf("/readyz: %q, want degraded", got)
	}
	op := operatorOf(t, env)
	if got := op.metric("relayguard_history_degraded"); got != 1 {
		t.Errorf("relayguard_history_degraded is %v", got)
	}
	p.room(math.MaxUint64)
	texts := []string{"a", "b", "c", "d"}
	// The next attempt is with the first message after ten seconds.
	deadline := time.NewTimer(3 * testkit.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for ready() != "ready\n" {
		select {
		case <-deadline.C:
			t.Fatalf("the disk has recovered, the server has not:\n%s", p.stderr)
		case <-tick.C:
		}
		texts = append(texts, "more "+string(rune('0'+len(texts)%10))+" "+time.Now().String())
		device.publish(texts[len(texts)-1])
	}
	if got := op.metric("relayguard_history_degraded"); got != 0 {
		t.Errorf("relayguard_history_degraded is %v", got)
	}
	testkit.Eventually(t, "the recovery is logged", func() bool { return len(p.stderr.Events(recovered)) > 0 })
	if err := p.cmd.Process.Kill(); err != nil { // a history in memory only would be lost
		t.Fatal(err)
	}
	p.wait() // all that the server has logged is read
	if n, m := len(p.stderr.Events(failing)), len(p.stderr.Events(recovered)); n != 1 || m != 1 {
		t.Errorf("the failure is logged %d times and the recovery %d times, want each once:\n%s", n, m, p.stderr)
	}
	s, _ = serving(t, env)
	s.shows(texts...)
}
