package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// board is the state of the device at this moment. Its methods may be called
// from any goroutine.
type board struct {
	mu       sync.Mutex
	state    publish.State
	restarts float64
	memory   float64
}

func (b *board) connection(s publish.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = s
}

func (b *board) life(restarts float64, memory *wire.Memory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.restarts = restarts
	if memory != nil {
		b.memory = memory.PercentUsed
	}
}

func (b *board) acknowledged() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.Acknowledged
}

// line returns the state in one line, which is short enough for any terminal.
func (b *board) line() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := "not publishing"
	if b.state.Connected {
		state = "publishing"
	}
	return fmt.Sprintf("%s · life %.0f · memory %.1f%% · %d sent · %d waiting", state, b.restarts, b.memory, b.state.Acknowledged, b.state.Unacknowledged)
}

// terminal writes log lines, and below the last of them one that changes. Where it is
// no terminal, there are log lines only.
type terminal struct {
	w     io.Writer
	fancy bool

	mu   sync.Mutex
	line string
}

// How often the line changes, and what takes it away.
const (
	redrawEvery = 250 * time.Millisecond
	clearLine   = "\r\x1b[K"
)

func newTerminal(w io.Writer) *terminal {
	t := &terminal{w: w}
	if f, ok := w.(*os.File); ok {
		t.fancy = term.IsTerminal(int(f.Fd()))
	}
	return t
}

// Write writes log lines.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line == "" {
		return t.w.Write(p)
	}
	if _, err := fmt.Fprintf(t.w, "%s%s%s", clearLine, p, t.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t *terminal) draw(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if line != t.line {
		fmt.Fprint(t.w, clearLine, line)
		t.line = line
	}
}

// show keeps the line up to date until the returned func is called.
func (t *terminal) show(line func() string) (stop func()) {
	if !t.fancy {
		return func() {}
	}
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(redrawEvery)
		defer tick.Stop()
		for {
			select {
			case <-ending:
				t.draw("")
				return
			case <-tick.C:
				t.draw(line())
			}
		}
	}()
	return func() { close(ending); <-ended }
}
