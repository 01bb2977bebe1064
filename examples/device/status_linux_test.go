package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// On a terminal, the last line shows the state, and log lines are written above
// it.
func TestStatusLine(t *testing.T) {
	r := startRelay(t)
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no pseudo terminals here: mount devpts: ", err)
	}
	defer person.Close()
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := new(text)
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
