package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// atTerminal runs a command at a terminal and returns the terminal's output.
func atTerminal(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, person *os.File, seen *testkit.Log, echoes func() bool) {
	t.Helper()
	person, tty := testkit.Terminal(t)
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{"RELAYGUARD_TEST_MAIN=1", "LOG_FORMAT=json"}, env...)
	cmd.Stdin, cmd.Stderr = tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	seen = new(testkit.Log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(seen, person)
	}()
	t.Cleanup(func() {
		tty.Close()
		<-done
	})
	return cmd, person, seen, func() bool {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
}

// The commands ask for a passphrase at a terminal, which does not show it. An
// export asks twice, since a mistyped passphrase would make the archive
// unreadable.
func TestPassphraseIsAskedFor(t *testing.T) {
	t.Parallel()
	const passphrase = "correct horse battery"
	env := operable(t, durable(t, filepath.Join(t.TempDir(), "history")))
	s, _ := serving(t, env)
	s.publisher().publish("one")
	name := filepath.Join(t.TempDir(), "a.age")
	say := func(person *os.File, seen *testkit.Log, echoes func() bool, prompt, answer string) {
		t.Helper()
		testkit.Eventually(t, prompt, func() bool { return strings.Contains(seen.String(), prompt) && !echoes() })
		if _, err := io.WriteString(person, answer+"\n"); err != nil {
			t.Fatal(err)
		}
	}

	cmd, person, seen, echoes := atTerminal(t, env, "export", "-passphrase", "-o", name)
	say(person, seen, echoes, "Passphrase", passphrase)
	say(person, seen, echoes, "again", "another")
	if err := cmd.Wait(); err == nil {
		t.Error("two different passphrases are accepted")
	}
	testkit.Eventually(t, "the difference is reported", func() bool { return strings.Contains(seen.String(), "differ") })
	if _, err := os.Stat(name); err == nil {
		t.Error("there is an archive despite the error")
	}

	cmd, person, seen, echoes = atTerminal(t, env, "export", "-passphrase", "-o", name)
	say(person, seen, echoes, "Passphrase", passphrase)
	say(person, seen, echoes, "again", passphrase)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, seen)
	}
	testkit.Eventually(t, "a line of progress", func() bool { return strings.Contains(seen.String(), "\rmessages: 1, KiB: 0") })
	if strings.Contains(seen.String(), passphrase) || !echoes() {
		t.Errorf("seen %q, echo %v: want no passphrase", seen, echoes())
	}

	s.publisher().publish("two")
	cmd, person, seen, echoes = atTerminal(t, env, "import", name)
	say(person, seen, echoes, "Passphrase", passphrase)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, seen)
	}
	s.shows("one")

	// An interrupted command leaves the terminal as it was.
	cmd, _, seen, echoes = atTerminal(t, env, "import", name)
	testkit.Eventually(t, "asked", func() bool { return strings.Contains(seen.String(), "Passphrase") && !echoes() })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !echoes() {
		t.Errorf("interrupted: %v, the terminal echoes: %v", err, echoes())
	}
}

func TestEncryptedToATerminal(t *testing.T) {
	_, recipient := agePair(t)
	env := operable(t, durable(t, filepath.Join(t.TempDir(), "history")))
	serving(t, env)
	_, tty := testkit.Terminal(t)
	var told bytes.Buffer
	cmd := exec.Command(os.Args[0], "export", "-recipient", recipient)
	cmd.Env = append([]string{"RELAYGUARD_TEST_MAIN=1"}, env...)
	cmd.Stdout, cmd.Stderr = tty, &told
	if err := cmd.Run(); err == nil || !strings.Contains(told.String(), "cannot go to a terminal") {
		t.Errorf("%v, told %q", err, told.String())
	}
}
