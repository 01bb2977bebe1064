package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/runes"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// maxInput is the longest text of one message of an input, in bytes. As JSON it
// is at most six times as long, and a prompt too, which is below the relay's
// limit of 64 KiB together.
const maxInput = 1 << 10

// input is a [publish.Source] of the text that another program writes. What one
// read gives is one message, so words and lines are published as they come. It
// ends with the error of the reader, which is io.EOF at the end.
//
// With a prompt, the text is a life of its own, which begins with a restart.
// Without one, the text follows what viewers have.
type input struct {
	from     io.Reader
	prompt   string
	restarts float64
	figures  func() *wire.Memory

	pieces  chan piece // nil before the first Next
	rest    string     // of a piece that is longer than a message
	born    bool       // the restart was published
	opening bool       // the next message has the prompt
	shown   time.Time  // when memory figures were published last
}

// piece is what one read gave.
type piece struct {
	text string
	err  error
}

// figuresEvery is the time between two messages of an input with memory
// figures.
const figuresEvery = time.Second

// Next waits for the next text.
func (in *input) Next(ctx context.Context) (wire.Message, error) {
	if in.pieces == nil {
		in.pieces = make(chan piece)
		// A read of standard input cannot be interrupted, so this goroutine
		// may outlast a canceled ctx, until the process ends.
		go in.read()
	}
	if in.prompt != "" && !in.born {
		in.born, in.opening = true, true
		restarting, restarts := true, in.restarts
		return wire.Message{Status: &wire.Status{IsRestarting: &restarting, NumRestarts: &restarts}}, nil
	}
	for in.rest == "" {
		select {
		case p, ok := <-in.pieces:
			if !ok {
				return wire.Message{}, io.EOF
			}
			if p.err != nil {
				return wire.Message{}, p.err
			}
			in.rest = p.text
		case <-ctx.Done():
			return wire.Message{}, ctx.Err()
		}
	}
	m := wire.Message{Text: whole(in.rest, maxInput)}
	in.rest = in.rest[len(m.Text):]
	if time.Since(in.shown) >= figuresEvery {
		in.shown = time.Now()
		m.Memory = in.figures()
	}
	if in.opening {
		in.opening = false
		m.Prompt, m.Status = &in.prompt, &wire.Status{NumRestarts: &in.restarts}
	}
	return m, nil
}

// read passes on what each read gives, in whole characters.
func (in *input) read() {
	defer close(in.pieces)
	buf, held := make([]byte, 8<<10), 0
	for {
		n, err := in.from.Read(buf[held:])
		data := buf[:held+n]
		cut := len(data)
		if err == nil {
			cut -= runes.Unfinished(data)
		}
		if cut > 0 {
			in.pieces <- piece{text: string(bytes.ToValidUTF8(data[:cut], []byte("\uFFFD")))}
		}
		held = copy(buf, data[cut:])
		if err != nil {
			if err != io.EOF {
				in.pieces <- piece{err: err}
			}
			return
		}
	}
}

// whole returns the beginning of s: at most n bytes, in whole characters, and
// without a part of its last word if s is longer.
func whole(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = runes.Cut(s, n)
	if i := strings.LastIndexAny(s, " \n"); i > len(s)/2 {
		return s[:i+1]
	}
	return s
}
