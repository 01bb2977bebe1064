package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestStdin is `mymodel | device -stdin`, with a relay that is killed
// meanwhile. Everything that the model wrote before its end is published, once
// and in order, and then the device ends.
func TestStdin(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	var mu sync.Mutex
	// look returns the text that a viewer has, who comes now.
	look := func() func() (text, prompt string, restarts int) {
		var text, prompt string
		restarts := 0
		r.watch(func(m message) {
			mu.Lock()
			defer mu.Unlock()
			if m.Status != nil && m.Status.Restarting {
				restarts++
			}
			if m.Prompt != nil {
				prompt = *m.Prompt
			}
			text += m.Text
		})
		return func() (string, string, int) { mu.Lock(); defer mu.Unlock(); return text, prompt, restarts }
	}
	early := look()
	pipe := func(args ...string) (*process, io.WriteCloser) {
		cmd := exec.Command(os.Args[0], append([]string{"-relay", "ws://" + r.addr + "/ws", "-token-file", r.token("-ttl", "1h"), "-stdin"}, args...)...)
		cmd.Env = []string{"RELAYGUARD_TEST_MAIN=1"}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		return begin(t, cmd), stdin
	}

	device, model := pipe("-prompt", "Count.")
	fmt.Fprint(model, "one ")
	eventually(t, "a word is published before the line ends", func() bool { text, _, _ := early(); return text == "one " }, device)
	want := "one "
	for i := range 900 {
		if i == 400 {
			if code := r.end(syscall.SIGKILL); code == 0 {
				t.Error("the relay was not killed")
			}
		}
		word := fmt.Sprintf("%d ", i)
		want += word
		fmt.Fprint(model, word)
		if i == 700 { // more than fits on the way waits for the relay
			r.start()
		}
	}
	model.Close()
	if code := device.wait(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, device.stderr)
	}
	late := look() // the history has everything
	eventually(t, "everything is published", func() bool { text, _, _ := late(); return len(text) >= len(want) })
	if got, _, _ := late(); got != want {
		t.Errorf("%d bytes of text, want %d: …%q", len(got), len(want), got[max(0, len(got)-100):])
	}
	if _, prompt, restarts := early(); prompt != "Count." || restarts != 1 {
		t.Errorf("%d restarts, the prompt %q", restarts, prompt)
	}
	if !strings.Contains(device.stderr.String(), "the input has ended") || strings.Contains(device.stderr.String(), "ERROR") {
		t.Errorf("the log:\n%s", device.stderr)
	}

	// Without a prompt, it follows what viewers have.
	device, model = pipe()
	fmt.Fprint(model, "more\n")
	model.Close()
	if code := device.wait(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, device.stderr)
	}
	eventually(t, "the rest is published", func() bool { text, _, _ := late(); return text == want+"more\n" })
	if _, _, restarts := early(); restarts != 1 {
		t.Error("text without a prompt has cleared the page")
	}
}
