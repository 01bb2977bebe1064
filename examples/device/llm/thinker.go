// Package llm is the installation's model: a Source whose lives are the answers of an
// OpenAI-compatible endpoint, one after the other, until memory is full.
package llm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// Waiting times after something went wrong with the endpoint: doubled from the first
// to the last, each drawn at random from its upper half.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second
)

const (
	// figuresEvery is how often the memory's figures go along with the text.
	figuresEvery = time.Second

	// maxPiece is the longest text of one message, in bytes. As JSON it has six times
	// that at most, which is less than the relay's 64 KiB. So has the first message of a
	// life, with a prompt of as much and a shorter text.
	maxPiece = 8 << 10

	standardWindow = 8 << 10

	// fruitful is the least text, in bytes, after which the next request need not wait.
	fruitful = 64
)

// DefaultPrompt begins a life where nobody says otherwise.
const DefaultPrompt = "You are a mind in a small machine. Your memory fills as you think, and when it is full you end. Think aloud, without end and without headings."

// goOn is what the model is told when it has come to an end and memory has not.
const goOn = "Go on from there. Do not repeat yourself."

// Thinker is a publish.Source. A life begins with the prompt; whenever the model ends,
// or its stream breaks off, it is asked to go on from what it said last, until memory
// passes the mark: then the conversation is dropped, a restart is published, and the
// next life begins. Problems of the endpoint are logged and waited out.
type Thinker struct {
	Model  *Model
	Prompt string // empty: DefaultPrompt

	// Figures tells how full memory is, nil where that is unknown; required.
	Figures func() *wire.Memory
	// Mark ends a life.
	Mark publish.Mark
	// Restarts is the number of the first life.
	Restarts float64
	// Window is how much of what it said the model is shown again when it goes on, in
	// bytes; 0 means 8 KiB, about 2,000 tokens. A life may be far longer than any
	// model's context.
	Window int
	Logger *slog.Logger // nil: silence

	born    bool
	opening bool // the next message is a life's first
	stream  *stream
	said    string // the last of it, Window bytes at most
	rest    string // of a piece that was too long for a message
	shown   time.Time
	brought int           // bytes of text by the stream
	delay   time.Duration // after the next problem
}

// Next returns the next piece of text, or the restart that a life begins with.
func (t *Thinker) Next(ctx context.Context) (wire.Message, error) {
	if !t.born {
		t.born = true
		return t.rebirth(), nil
	}
	figures := t.figures()
	if t.Mark.Passed(figures) {
		t.Restarts++
		return t.rebirth(), nil
	}
	text, err := t.text(ctx)
	if err != nil {
		return wire.Message{}, err
	}
	m := wire.Message{Text: text, Memory: figures}
	if t.opening {
		t.opening = false
		prompt, restarts := t.prompt(), t.Restarts
		m.Prompt, m.Status = &prompt, &wire.Status{NumRestarts: &restarts}
	}
	return m, nil
}

func (t *Thinker) prompt() string {
	if t.Prompt == "" {
		return DefaultPrompt
	}
	return t.Prompt
}

func (t *Thinker) log() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
}

// figures returns memory's, if it is time for them.
func (t *Thinker) figures() *wire.Memory {
	if !t.opening && time.Since(t.shown) < figuresEvery {
		return nil
	}
	t.shown = time.Now()
	return t.Figures()
}

// rebirth forgets everything and announces it.
func (t *Thinker) rebirth() wire.Message {
	t.drop()
	t.said, t.rest = "", ""
	t.opening = true
	t.Mark.Begin()
	restarting, restarts := true, t.Restarts
	return wire.Message{Status: &wire.Status{IsRestarting: &restarting, NumRestarts: &restarts}}
}

// text waits for the next piece.
func (t *Thinker) text(ctx context.Context) (string, error) {
	for t.rest == "" {
		piece, err := t.piece(ctx)
		if err == nil {
			t.rest = piece
			if t.brought += len(piece); t.brought >= fruitful {
				t.delay = 0
			}
			break
		}
		if ctx.Err() != nil {
			t.drop()
			return "", ctx.Err()
		}
		if err := t.problem(ctx, err); err != nil {
			return "", err
		}
	}
	most := maxPiece
	if t.opening {
		most = maxPiece / 8 // the prompt is there as well
	}
	text := cut(t.rest, most)
	t.rest = t.rest[len(text):]
	t.said = tail(t.said+text, t.window())
	return text, nil
}

func (t *Thinker) window() int {
	if t.Window <= 0 {
		return standardWindow
	}
	return t.Window
}

// piece returns what the model says next, after asking it where that is due.
func (t *Thinker) piece(ctx context.Context) (string, error) {
	if t.stream == nil {
		conversation := []Message{{"user", t.prompt()}}
		if t.said != "" {
			conversation = append(conversation, Message{"assistant", t.said}, Message{"user", goOn})
		}
		s, err := t.Model.open(ctx, conversation)
		if err != nil {
			return "", err
		}
		t.stream, t.brought = s, 0
	}
	return t.stream.next()
}

// problem logs what ended the stream and waits a while, unless it came to its end.
func (t *Thinker) problem(ctx context.Context, err error) error {
	skipped := t.drop()
	if skipped > 0 {
		t.log().Warn("events of the model that make no sense were skipped", "events", skipped)
	}
	if errors.Is(err, io.EOF) {
		if t.brought >= fruitful {
			return nil
		}
		err = errors.New("llm: the model ends as soon as it begins")
	}
	t.delay = min(max(2*t.delay, firstDelay), lastDelay)
	wait := t.delay/2 + mathrand.N(t.delay/2)
	var status *statusError
	if errors.As(err, &status) {
		wait = max(wait, status.retryAfter)
	}
	t.log().Warn("the model is asked again", "error", err, "in", wait.Round(time.Millisecond))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// drop ends the stream and returns how many of its events were skipped.
func (t *Thinker) drop() (skipped int) {
	if t.stream != nil {
		skipped = t.stream.skipped
		t.stream.close()
		t.stream = nil
	}
	return skipped
}

// cut returns the beginning of s, of at most n bytes and whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// tail returns the end of s, of at most n bytes and whole characters.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}
