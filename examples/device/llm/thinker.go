// Package llm is the language model of the installation. Its [Thinker] is a
// source for package publish: a life is a series of answers of an
// OpenAI-compatible endpoint, and ends when memory is full.
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
	"github.com/relayguard/relayguard/examples/internal/runes"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// After a problem of the endpoint, the device waits before it asks again. The
// delay doubles from firstDelay to lastDelay. The wait is random, between half
// the delay and the delay.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second
)

const (
	// figuresEvery is the time between two messages with memory figures.
	figuresEvery = time.Second

	// maxPiece is the longest text of one message, in bytes. As JSON it is at
	// most six times as long, which is below the relay's limit of 64 KiB. The
	// first message of a life has a prompt of the same length and a shorter
	// text, so it is below the limit too.
	maxPiece = 8 << 10

	standardWindow = 8 << 10 // the default of Thinker.Window

	// fruitful is the length of an answer, in bytes, after which the next
	// request need not wait.
	fruitful = 64
)

// DefaultPrompt is the default of Thinker.Prompt.
const DefaultPrompt = "You are a mind in a small machine. Your memory fills as you think, and when it is full you end. Think aloud, without end and without headings."

// goOn asks the model to go on after its answer has ended.
const goOn = "Go on from there. Do not repeat yourself."

// Thinker is a [publish.Source] of the text of a model. A life begins with the
// prompt. When an answer of the model ends or breaks off, the Thinker asks the
// model to go on from its last text. When memory passes the mark, the life
// ends: the Thinker drops the conversation, publishes a restart and begins the
// next life. It logs problems of the endpoint, and asks again after a while.
type Thinker struct {
	// Model and Figures are required.
	Model *Model
	// Prompt begins each life. If empty, it is DefaultPrompt.
	Prompt string
	// Figures returns how full memory is, or nil if that is unknown.
	Figures func() *wire.Memory
	// Mark ends a life.
	Mark publish.Mark
	// Restarts is the number of the first life.
	Restarts float64
	// Window is how much of its last text the model gets when it has to go on,
	// in bytes. 0 means 8 KiB, about 2,000 tokens. It must fit into the context
	// of the model; a life may be much longer than that.
	Window int
	// Apart publishes what a model thinks before it answers, as a quotation:
	// its lines begin with "> ". Without it, only the answers are published.
	// The model does not get its thoughts again.
	Apart bool
	// Logger gets one line when the model stops answering, for each kind of
	// problem, and one when it answers again. If nil, nothing is logged.
	Logger *slog.Logger

	born    bool // the first life has begun
	opening bool // the next message is the first of a life
	stream  *stream
	said    string        // the last text of this life, at most Window bytes
	rest    string        // the part of a piece that is not published yet
	thought bool          // rest is of a thought
	quoting bool          // the last piece was a thought
	spoken  bool          // this life has a piece
	outage  outage        // the problems since the last good answer
	shown   time.Time     // when memory figures were published last
	brought int           // bytes of text in this stream
	delay   time.Duration // the last delay after a problem; 0 after a good answer
}

// Next returns the next piece of text, or the restart with which a life begins.
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

// figures returns the memory figures, or nil if the last ones are not old
// enough.
func (t *Thinker) figures() *wire.Memory {
	if !t.opening && time.Since(t.shown) < figuresEvery {
		return nil
	}
	t.shown = time.Now()
	return t.Figures()
}

// rebirth begins a life without the text of the last one, and returns the
// message that announces it.
func (t *Thinker) rebirth() wire.Message {
	t.drop()
	t.said, t.rest = "", ""
	t.quoting, t.spoken = false, false
	t.opening = true
	t.Mark.Begin()
	restarting, restarts := true, t.Restarts
	return wire.Message{Status: &wire.Status{IsRestarting: &restarting, NumRestarts: &restarts}}
}

// text waits for the next text of a message.
func (t *Thinker) text(ctx context.Context) (string, error) {
	for t.rest == "" {
		p, err := t.piece(ctx)
		if err == nil {
			t.rest, t.thought = t.dress(p), p.thought
			if !p.thought {
				t.brought += len(p.text)
			}
			if t.brought >= fruitful {
				t.delay = 0
				t.outage.end(t.log())
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
		most = maxPiece / 8 // the message also has the prompt
	}
	text := runes.Cut(t.rest, most)
	t.rest = t.rest[len(text):]
	if !t.thought {
		t.said = tail(t.said+text, t.window())
	}
	return text, nil
}

// dress returns a piece as it is published: a thought is a paragraph of its own.
func (t *Thinker) dress(p piece) string {
	text, between := p.text, ""
	if p.thought {
		text = quoted(text)
	}
	if p.thought != t.quoting {
		if t.spoken {
			between = "\n\n"
		}
		if p.thought {
			between += "> "
		}
	}
	t.quoting, t.spoken = p.thought, true
	return between + text
}

func (t *Thinker) window() int {
	if t.Window <= 0 {
		return standardWindow
	}
	return t.Window
}

// piece returns the next piece of what the model says. If there is no stream,
// it asks the model first.
func (t *Thinker) piece(ctx context.Context) (piece, error) {
	if t.stream == nil {
		conversation := []Message{{"user", t.prompt()}}
		if t.said != "" {
			conversation = append(conversation, Message{"assistant", t.said}, Message{"user", goOn})
		}
		s, err := t.Model.open(ctx, conversation)
		if err != nil {
			return piece{}, err
		}
		s.loud = t.Apart
		t.stream, t.brought = s, 0
	}
	return t.stream.next()
}

// problem handles err, which ended the stream. It waits, unless err is the
// regular end of an answer that is long enough.
func (t *Thinker) problem(ctx context.Context, err error) error {
	if skipped := t.drop(); skipped > 0 {
		t.outage.skipped(ctx, t.log(), skipped)
	}
	if errors.Is(err, io.EOF) {
		if t.brought >= fruitful {
			return nil
		}
		err = errTooShort
	}
	t.delay = min(max(2*t.delay, firstDelay), lastDelay)
	wait := t.delay/2 + mathrand.N(t.delay/2)
	var status *statusError
	if errors.As(err, &status) {
		wait = max(wait, status.retryAfter)
	}
	t.outage.note(ctx, t.log(), err, wait)
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

// tail returns the end of s: at most n bytes, in whole characters.
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
