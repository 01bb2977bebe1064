package publish

import (
	"context"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// The longest text of a joined message, in bytes. As JSON it is at most six
// times as long. A message with a prompt, which is at most 8 KiB long too, has
// less room.
const (
	maxJoined         = 8 << 10
	maxJoinedToPrompt = 1 << 10
)

// Batch is a [Source] that joins the texts of another. It waits for Window after
// the first text, and returns what came until then as one message. So a model
// that says 50 words a second causes ten messages a second, and the relay's
// history, which may count messages, holds more text.
//
// A restart signal stays alone, and a prompt or a status begins a message. Of
// several memory figures, the last ones count. All calls of Next must have the
// same context.
type Batch struct {
	Source Source
	Window time.Duration // 0 means that no messages are joined

	coming chan next // the result of a call of Source.Next, or nil
	held   *next     // a result that did not fit
}

// next is the result of a call of Source.Next.
type next struct {
	message wire.Message
	err     error
}

// Next returns what the source says within the window. If the source fails, it
// first returns what was said before.
func (b *Batch) Next(ctx context.Context) (wire.Message, error) {
	if b.Window <= 0 {
		return b.Source.Next(ctx)
	}
	n := b.held
	if b.held = nil; n == nil {
		first := <-b.ask(ctx)
		b.coming, n = nil, &first
	}
	joined := n.message
	if n.err != nil || joined.Restarting() {
		return joined, n.err
	}
	timer := time.NewTimer(b.Window)
	defer timer.Stop()
	for {
		select {
		case n := <-b.ask(ctx):
			b.coming = nil
			if n.err != nil || !join(&joined, &n.message) {
				b.held = &n
				return joined, nil
			}
		case <-timer.C:
			return joined, nil
		}
	}
}

// ask makes the source's next message come, unless it is coming already.
func (b *Batch) ask(ctx context.Context) <-chan next {
	if b.coming == nil {
		coming := make(chan next, 1)
		b.coming = coming
		go func() {
			m, err := b.Source.Next(ctx)
			coming <- next{m, err}
		}()
	}
	return b.coming
}

// join adds m to joined, if both can be one message.
func join(joined, m *wire.Message) bool {
	most := maxJoined
	if joined.Prompt != nil {
		most = maxJoinedToPrompt
	}
	if m.Prompt != nil || m.Status != nil || m.ID != "" || joined.ID != "" || len(joined.Text)+len(m.Text) > most {
		return false
	}
	joined.Text += m.Text
	if m.Memory != nil {
		joined.Memory = m.Memory
	}
	return true
}
