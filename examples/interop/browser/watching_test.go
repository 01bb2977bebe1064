package browser_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestWatching shows how many watch, in both themes, on a laptop and on a phone.
func TestWatching(t *testing.T) {
	server := relay.New(t, "SHOW_WATCHING=true")
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	b.says(`^Connected`)
	device := publisher(t, server) // it watches too
	say := message{"text": passage, "prompt": "Think aloud.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}
	device(say.String())
	b.shows("#watching", "2 are watching")
	for _, scheme := range []string{"light", "dark"} {
		for _, size := range [][2]int64{{1280, 800}, {360, 740}} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(size[0], size[1]))
			b.painted()
			b.pictureOf(fmt.Sprintf("watching-%s-%d", scheme, size[0]))
		}
	}
	b.silent()
	b.accessible(axe(t), "watching")
}
