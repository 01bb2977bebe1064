package main

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// On a terminal, the last line shows the state, and log lines are written above
// it.
func TestStatusLine(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	person, tty := testkit.Terminal(t)
	seen := new(testkit.Log)
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(seen, person) }()

	device := r.device(tty, "-token-file", r.token("-pair"), "-simulate-memory", "100")
	eventually(t, "the line counts", func() bool {
		s := seen.String()
		return strings.Contains(s, "\r\x1b[Kpublishing · life 1 · memory ") && strings.Contains(s, " sent · ")
	})
	if code := device.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	tty.Close()
	<-read
	lines := strings.Split(strings.ReplaceAll(seen.String(), "\r\n", "\n"), "\n")
	for _, line := range lines[:len(lines)-1] {
		if after := line[strings.LastIndex(line, "\x1b[K")+len("\x1b[K"):]; strings.Contains(line, "\x1b[K") && !strings.HasPrefix(after, "time=") {
			t.Errorf("the status line disturbs a log line: %q", line)
		}
	}
	if rest := lines[len(lines)-1]; rest != "" && !strings.HasSuffix(rest, "\x1b[K") {
		t.Errorf("left behind: %q", rest)
	}
}
