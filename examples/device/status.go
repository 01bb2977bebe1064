package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/terminal"
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

// screen writes log lines, and below the last of them one that changes. Where
// it is no terminal, there are log lines only.
type screen struct {
	w    io.Writer
	live bool

	mu   sync.Mutex
	line string
}

// redrawEvery is how often the line changes.
const redrawEvery = 250 * time.Millisecond

func newScreen(w io.Writer) *screen {
	return &screen{w: w, live: terminal.Is(w)}
}

// Write writes log lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if err := terminal.Control(s.w, terminal.ClearLine); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(s.w, "%s%s", p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *screen) draw(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line != s.line {
		_ = terminal.Control(s.w, terminal.ClearLine)
		fmt.Fprint(s.w, line)
		s.line = line
	}
}

// show keeps the line up to date until the returned func is called.
func (s *screen) show(line func() string) (stop func()) {
	if !s.live {
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
				s.draw("")
				return
			case <-tick.C:
				s.draw(line())
			}
		}
	}()
	return func() { close(ending); <-ended }
}
