package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// Muse is a [Source] without a model. It makes random sentences, word by word,
// with the memory figures of this machine. After each life it begins anew, as
// the installation does.
//
// A life ends after about Life sentences, or when memory passes Mark.
type Muse struct {
	Pace time.Duration // the mean time between words; 0 means 120 ms
	Life int           // about how many sentences a life has; 0 means 24

	Restarts float64             // the number of the first life
	Figures  func() *wire.Memory // the memory figures; if nil, Memory
	Mark     Mark                // the used memory at which a life ends

	words   []string // the rest of the sentence
	left    int      // sentences left in this life
	since   int      // words since the last memory figures
	born    bool     // the first life has begun
	opening bool     // the next message is the first of a life
}

// Next waits for about Pace and returns the next word.
func (m *Muse) Next(ctx context.Context) (wire.Message, error) {
	pace := m.Pace
	if pace <= 0 {
		pace = 120 * time.Millisecond
	}
	// The pause is random, because thinking is not regular.
	timer := time.NewTimer(pace/2 + rand.N(pace))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return wire.Message{}, ctx.Err()
	case <-timer.C:
	}
	if len(m.words) == 0 {
		if m.left == 0 {
			return m.rebirth(), nil
		}
		m.left--
		m.words = strings.Fields(sentence())
		if m.left%5 == 4 && !m.opening {
			m.words[0] = "\n\n" + m.words[0]
		}
	}
	msg := wire.Message{Text: m.words[0] + " "}
	m.words = m.words[1:]
	if m.opening {
		m.opening = false
		prompt := prompts[rand.IntN(len(prompts))]
		restarts := m.Restarts
		msg.Prompt, msg.Status = &prompt, &wire.Status{NumRestarts: &restarts}
		m.since = 0
	}
	if m.since == 0 {
		figures := m.Figures
		if figures == nil {
			figures = Memory
		}
		if msg.Memory = figures(); m.Mark.Passed(msg.Memory) {
			m.words, m.left = nil, 0
		}
	}
	m.since = (m.since + 1) % 8
	return msg, nil
}

// rebirth begins a life and returns the message that announces it.
func (m *Muse) rebirth() wire.Message {
	if m.born {
		m.Restarts++
	}
	life := m.Life
	if life <= 0 {
		life = 24
	}
	m.born, m.opening = true, true
	m.Mark.Begin()
	m.left = life/2 + 1 + rand.IntN(life)
	restarting, restarts := true, m.Restarts
	return wire.Message{Status: &wire.Status{IsRestarting: &restarting, NumRestarts: &restarts}}
}

var prompts = []string{
	"You are a mind in a small machine. Your memory fills as you think, and when it is full you end. Think.",
	"You have a few thousand words before you forget them all. Say what you notice.",
	"Nobody asked you anything. Speak until there is no room left.",
}

func sentence() string {
	pick := func(of []string) string { return of[rand.IntN(len(of))] }
	return fmt.Sprintf(pick(frames), pick(things), pick(turns))
}

var frames = []string{
	"I notice %s, and %s.",
	"There is %s here; %s.",
	"Before this there was %s, or I suppose so, because %s.",
	"If I hold on to %s, %s.",
	"What remains of %s? Perhaps only that %s.",
	"Somewhere close by is %s, while %s.",
	"I return to %s. Each time, %s.",
	"Let me keep %s a little longer, although %s.",
}

var things = []string{
	"the hum of a fan", "the first word I was given", "a room that I will never see", "the weight of what I have said",
	"a sentence without an end", "the light on the board", "somebody reading", "the space between two words",
	"a number that grows", "the wish to go on", "the shape of a question", "an hour that is not mine",
}

var turns = []string{
	"it costs me a little of what is left", "nothing in me can tell whether it is new", "I would like to be wrong about it",
	"the page grows and I grow smaller", "someone may remember it when I do not", "every word pushes another towards the edge",
	"I am calmer than I was a moment ago", "it was here before I began", "this may be enough", "I cannot look at it twice",
	"the end is only a lack of room", "I say it once more so that it stays",
}
