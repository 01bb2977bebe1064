package browser_test

import (
	"bytes"
	"fmt"
	"image/png"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestThousands publishes more than a page can hold, to one who follows and to
// one who has scrolled up to read.
func TestThousands(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	number := 0
	// tell publishes n messages of about 300 characters, a paragraph for every
	// fifth.
	tell := func(n int) {
		t.Helper()
		for range n {
			number++
			text := fmt.Sprintf("%d %s. ", number, strings.Repeat("word ", 58))
			if number%5 == 0 {
				text += "\n"
			}
			device(message{"text": text, "memory": memory(float64(number % 100))}.String())
		}
		b.shows("#text", fmt.Sprintf("%d word", number))
	}
	const nodes = `document.querySelectorAll('*').length`
	const characters = `document.querySelector('#text').textContent.length`
	const atEnd = `document.documentElement.scrollHeight - innerHeight - scrollY <= 2`

	tell(600) // 180,000 characters
	full := value[int](b, nodes)
	tell(900)
	b.holds("the newest is in view", atEnd)
	if n := value[int](b, nodes); n > full+20 {
		t.Errorf("%d elements after 600 messages, %d after 1500", full, n)
	}
	if n := value[int](b, characters); n > 160_000 || n < 100_000 {
		t.Errorf("a page that follows holds %d characters", n)
	}

	// Who reads further up keeps the place, to the pixel, while text comes at
	// the end and in time goes at the beginning.
	value[int](b, `(scrollBy({ top: -3000, behavior: 'instant' }), 0)`)
	b.holds("the way back is offered", `!document.querySelector('#latest').hidden`)
	value[int](b, `(() => {
		const seen = [...document.querySelectorAll('#text p')].find((p) => p.getBoundingClientRect().top > 0);
		window.place = { seen, top: seen.getBoundingClientRect().top, first: document.querySelector('#text p') };
		return 0;
	})()`)
	tell(1100) // 330,000 more: together over what even a reader's page holds
	if value[bool](b, `window.place.first.isConnected`) {
		t.Fatal("nothing has gone: the bound was not reached, and nothing is proven")
	}
	if !value[bool](b, `window.place.seen.isConnected`) {
		t.Fatal("what is being read has gone")
	}
	if moved := value[float64](b, `window.place.seen.getBoundingClientRect().top - window.place.top`); moved < -1 || moved > 1 {
		t.Errorf("the line that is being read has moved by %v pixels", moved)
	}
	if n := value[int](b, characters); n > 460_000 {
		t.Errorf("a page that is read holds %d characters", n)
	}

	b.do(chromedp.Click(chromedp.CSS("#latest")))
	b.holds("the newest is in view again", atEnd)
	b.holds("and the way back is not offered", `document.querySelector('#latest').hidden`)
	tell(50)
	b.holds("it follows again", atEnd)
	if n := value[int](b, characters); n > 160_000 {
		t.Errorf("a page that follows again holds %d characters", n)
	}
	if n := value[int](b, `document.querySelectorAll('#announce p').length`); n > 6 {
		t.Errorf("%d sentences wait to be read out", n)
	}
	b.silent()
}

// TestHands uses the page as those do who hold a keyboard, a phone or a
// projector.
func TestHands(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	long := strings.Repeat("A paragraph of one line.\n\n", 80)
	device(message{"text": long, "prompt": strings.Repeat("A prompt that is too long for its place. ", 60), "memory": memory(40)}.String())
	b.shows("#text", "A paragraph")
	focused := func(selector string) string {
		return fmt.Sprintf(`document.activeElement === document.querySelector(%q)`, selector)
	}
	press := func(key string) { t.Helper(); b.do(chromedp.KeyEvent(key)) }

	// The way of the Tab key: past everything, or through all that can be used.
	for _, size := range [][2]int64{{640, 300}, {360, 740}, {1366, 768}} {
		b.do(chromedp.EmulateViewport(size[0], size[1]))
		b.do(chromedp.Reload())
		b.shows("#text", "A paragraph")
		b.holds("the newest is in view", `scrollY > 0 && document.querySelector('#latest').hidden`)
		for _, selector := range []string{".skip", "#prompt", "#pause", "#fullscreen"} {
			press(kb.Tab)
			b.holds("Tab reaches "+selector, focused(selector))
			b.holds("and shows it", `getComputedStyle(document.activeElement).outlineStyle === 'solid'`)
			b.holds("within the window", `(({ top, bottom }) => top >= 0 && bottom <= innerHeight)(document.activeElement.getBoundingClientRect())`)
		}
	}
	value[int](b, `(document.querySelector('.skip').focus(), 0)`)
	press(kb.Enter)
	b.holds("the link skips to the text", focused("#main"))

	// One line up is a wish to read, and the next word does not undo it.
	press(kb.ArrowUp)
	b.holds("the way back is offered", `!document.querySelector('#latest').hidden`)
	place := value[float64](b, `scrollY`)
	device(message{"text": "A word more. \n\n"}.String())
	b.shows("#text", "A word more.")
	b.holds("the place is kept", fmt.Sprintf(`Math.abs(scrollY - %v) < 45`, place)) // a scroll that is under way ends
	press(kb.End)
	b.holds("End is the way back, too", `document.querySelector('#latest').hidden`)

	b.do(chromedp.Click(chromedp.CSS("#pause")))
	b.shows("#pause", "Continue")
	b.says(`^Live\. Paused here\.$`)
	device(message{"text": "Said meanwhile."}.String())
	device(message{"text": "", "memory": memory(41)}.String())
	if value[bool](b, `document.querySelector('#text').textContent.includes('meanwhile')`) {
		t.Error("a paused page moves")
	}
	b.do(chromedp.Click(chromedp.CSS("#pause")))
	b.shows("#text", "Said meanwhile.")

	b.do(chromedp.Click(chromedp.CSS("#fullscreen")))
	b.holds("the page fills the screen", `document.fullscreenElement === document.documentElement`)
	b.shows("#fullscreen", "Leave full screen")
	b.holds("the buttons go when the pointer rests", `getComputedStyle(document.querySelector('.controls')).visibility === 'hidden'`)
	press(kb.Shift)
	b.holds("and come back", `getComputedStyle(document.querySelector('.controls')).visibility === 'visible'`)
	b.do(chromedp.Click(chromedp.CSS("#fullscreen")))
	b.holds("the page leaves it", `document.fullscreenElement === null`)
	b.silent()
}

// TestMotion looks at the end of a life with and without the wish for less
// motion.
func TestMotion(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	const moving = `document.getAnimations().length`
	value[int](b, `(window.begun = [], addEventListener('animationstart', ({ animationName }) => window.begun.push(animationName)), 0)`)
	begun := func(name string) string { return fmt.Sprintf(`window.begun.includes(%q)`, name) }
	die := func(n int) {
		t.Helper()
		device(message{"text": fmt.Sprintf("Life and death %d.", n), "memory": memory(98)}.String())
		b.shows("#text", fmt.Sprintf("Life and death %d.", n))
		device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": n}}.String())
		b.shows("#lives", fmt.Sprintf("Life %d,", n+1))
	}

	b.prefers("prefers-reduced-motion", "no-preference")
	die(7)
	b.holds("the old words are seen going", begun("leave"))
	b.holds("the end is said", begun("farewell"))
	b.shows("#end", "has ended.")
	b.holds("another life begins", begun("arrive"))
	b.holds("nothing of it stays", `!document.body.classList.contains('reborn') && document.querySelector('.ghost') === null && getComputedStyle(document.querySelector('#end')).visibility === 'hidden'`)

	value[int](b, `(window.begun = [], 0)`)
	b.prefers("prefers-reduced-motion", "reduce", "prefers-color-scheme", "light")
	die(8)
	b.shows("#birth", "Life 8 ended at")
	if names := value[string](b, `window.begun.join(' ')`); names != "" {
		t.Errorf("the visitor wants less motion and gets %s", names)
	}
	if n := value[int](b, moving); n != 0 {
		t.Errorf("%d animations run although the visitor wants less motion", n)
	}
	// The gauge's bar is out of reach for a selector of everything, and of
	// scripts: it is looked at. Two frames after the figure has changed, it has
	// arrived.
	b.do(chromedp.EmulateViewport(360, 740))
	for _, percent := range []float64{5, 97} {
		device(message{"text": "", "memory": memory(percent)}.String())
		b.shows("#percent", fmt.Sprintf("%v%%", percent))
		b.painted()
	}
	x := value[int](b, `Math.round(innerWidth * 0.9)`)
	y := value[int](b, `Math.round(document.querySelector('#memory').getBoundingClientRect().top + 1)`)
	picture, err := png.Decode(bytes.NewReader(b.picture()))
	if err != nil {
		t.Fatal(err)
	}
	if r, _, _, _ := picture.At(x, y).RGBA(); r>>8 > 0x40 {
		t.Errorf("the bar is still on its way to 97%%: at 90%% it is %v, not as dark as ink", picture.At(x, y))
	}
	b.silent()
}
