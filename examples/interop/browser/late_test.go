package browser_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestLateVisitor comes after the messages with the prompt, the life and the
// memory are no longer kept. The page shows them, and the text that is kept.
func TestLateVisitor(t *testing.T) {
	server := relay.New(t, "HISTORY_KEEP_TEXT=16KiB")
	server.Start()
	device := publisher(t, server)
	device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 4}}.String())
	device(message{"text": "I wake. ", "prompt": "Think aloud.", "memory": memory(63)}.String())
	const words = 6000 // about 36,000 characters, one word a message
	for i := range words {
		text := fmt.Sprintf("word%d ", i)
		if i%120 == 119 {
			text += "\n"
		}
		device(message{"text": text}.String())
	}
	first := open(t, "http://"+server.Addr+"/")
	first.shows("#text", fmt.Sprintf("word%d ", words-1))

	b := open(t, "http://"+server.Addr+"/") // everything is stored
	b.prefers("prefers-reduced-motion", "reduce")
	b.do(chromedp.EmulateViewport(1280, 800))
	b.shows("#text", fmt.Sprintf("word%d ", words-1))
	b.shows("#prompt", "Think aloud.")
	b.shows("#life", "Life 5")
	b.shows("#percent", "63%")
	if value[bool](b, `document.querySelector('#text').textContent.includes('I wake.')`) {
		t.Fatal("the first message is still kept: the test proves nothing")
	}
	if n := value[int](b, `document.querySelector('#text').textContent.length`); n < 10_000 {
		t.Errorf("the page has %d characters", n)
	}
	b.painted()
	b.pictureOf("late")
	b.silent()
}
