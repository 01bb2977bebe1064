package browser_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestNetworkChanges lets the browser say that its network goes and comes back
// while the connection stays open: it may be a dead one.
func TestNetworkChanges(t *testing.T) {
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	b := open(t, "about:blank")
	b.do(chromedp.Navigate("http://" + server.Addr + "/"))
	b.says(`^Connected, waiting$`)
	b.offline(true)
	b.says(`^Your device is offline\.$`)
	b.pictureOf("offline")
	b.watch()
	b.offline(false)
	b.said(`^Connect`)
	b.says(`^Connected, waiting$`)

	b.silent()
}

// TestLongPrompt has a prompt as long as a message may be. The page draws it,
// and later frames, in no more than a blink each.
func TestLongPrompt(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	prompt := strings.Repeat("Think aloud of what there is. ", 2000) // 60,000 characters
	for _, scheme := range []string{"light", "dark"} {
		for _, size := range [][2]int64{{1280, 800}, {360, 740}} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(size[0], size[1]))
			device(message{"text": "I wake. ", "prompt": prompt + scheme, "memory": memory(63)}.String())
			b.shows("#prompt", "Think aloud of what there is.")
			b.painted()
			// The number of characters is what bounds the work, on any machine.
			if n := value[int](b, `document.querySelector('#prompt').textContent.length`); n > 5000 {
				t.Errorf("the label has %d characters of the prompt", n)
			}
			t.Logf("a layout of the page takes %.1f ms", value[float64](b, `(() => {
				const begun = performance.now();
				for (let i = 0; i < 20; i += 1) { document.body.style.width = (99 + i % 2) + '%'; void document.body.offsetHeight; }
				document.body.style.width = '';
				return (performance.now() - begun) / 20; })()`))
			b.pictureOf(fmt.Sprintf("prompt-%s-%d", scheme, size[0]))
		}
	}
	b.silent()
}

// pictureOf keeps a picture in the directory PICTURES, if that is set.
func (b *browser) pictureOf(name string) {
	b.t.Helper()
	if dir := os.Getenv("PICTURES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), b.picture(), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}
