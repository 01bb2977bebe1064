package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/files"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// lives stands before a source and keeps count of what it does. Its methods belong to
// the goroutine that calls Next.
type lives struct {
	source   publish.Source
	observe  func(restarts float64, memory *wire.Memory)
	file     string // keeps the count; empty: none does
	simulate int64  // bytes of text that fill memory; 0: real figures
	log      *slog.Logger

	first    float64 // the number of the first life
	restarts float64
	said     int64 // bytes of text in this life
}

// newLives goes on counting where the file says that it was.
func newLives(file string, simulate int64, log *slog.Logger) *lives {
	l := &lives{file: file, simulate: simulate, log: log}
	if file == "" {
		return l
	}
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return l
	}
	var state struct{ Restarts float64 }
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		log.Warn("the number of restarts cannot be read and is counted from 0", "file", file, "error", err)
		return l
	}
	l.first = state.Restarts + 1 // this process's start is one
	return l
}

// Next returns the source's next message.
func (l *lives) Next(ctx context.Context) (wire.Message, error) {
	m, err := l.source.Next(ctx)
	if err != nil {
		return m, err
	}
	if m.Restarting() {
		l.said, l.restarts = 0, *m.Status.NumRestarts
		l.save()
	}
	l.said += int64(len(m.Text))
	l.observe(l.restarts, m.Memory)
	return m, nil
}

// save writes the count. A number that is lost is no reason to stop.
func (l *lives) save() {
	if l.file == "" {
		return
	}
	data, err := json.Marshal(map[string]float64{"restarts": l.restarts})
	if err == nil {
		err = files.Replace(l.file, append(data, '\n'))
	}
	if err != nil {
		l.log.Warn("the number of restarts is not saved", "error", err)
	}
}

// figures are memory's, real or pretended.
func (l *lives) figures() *wire.Memory {
	if l.simulate <= 0 {
		return publish.Memory()
	}
	return publish.Pretended(l.said, l.simulate)
}
