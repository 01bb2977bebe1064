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

// lives is a source that returns the messages of another source, and counts its
// lives and their text. Only the goroutine that calls Next may call its
// methods.
type lives struct {
	source   publish.Source
	observe  func(restarts float64, memory *wire.Memory)
	file     string // stores the number of restarts, unless it is empty
	simulate int64  // bytes of text that fill memory; 0 means real figures
	log      *slog.Logger

	first    float64 // the number of the first life
	restarts float64
	said     int64 // bytes of text in this life
}

// newLives returns a lives without a source. It reads the number of restarts
// from the file, if there is one.
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
		log.Warn("the number of restarts cannot be read; counting begins at 0", "file", file, "error", err)
		return l
	}
	l.first = state.Restarts + 1 // the start of this process is a restart
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

// save writes the number of restarts to the file. It only logs an error,
// because the device can go on without the number.
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

// figures returns the figures of the real or the simulated memory.
func (l *lives) figures() *wire.Memory {
	if l.simulate <= 0 {
		return publish.Memory()
	}
	return publish.Pretended(l.said, l.simulate)
}
