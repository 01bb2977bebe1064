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

// TestThousands publishes more text than the page keeps, first to a viewer that
// follows the end, and then to a viewer that has scrolled up.
func TestThousands(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	device := publisher(t, server)
	number := 0
	// tell publishes n messages of about 300 characters. Every fifth ends a
	// paragraph.
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

	// If the viewer has scrolled up, the line in view does not move by a pixel
	// while text is added at the end and removed at the beginning.
	value[int](b, `(scrollBy({ top: -3000, behavior: 'instant' }), 0)`)
	b.holds("the way back is offered", `!document.querySelector('#latest').hidden`)
	value[int](b, `(() => {
		const seen = [...document.querySelectorAll('#text p')].find((p) => p.getBoundingClientRect().top > 0);
		window.place = { seen, top: seen.getBoundingClientRect().top, first: document.querySelector('#text p') };
		return 0;
	})()`)
	tell(1100) // 330,000 more: the sum is above the limit of a page that is scrolled up
	if value[bool](b, `window.place.first.isConnected`) {
		t.Fatal("no text was removed: the limit was not reached, so the test proves nothing")
	}
	if !value[bool](b, `window.place.seen.isConnected`) {
		t.Fatal("the line in view was removed")
	}
	if moved := value[float64](b, `window.place.seen.getBoundingClientRect().top - window.place.top`); moved < -1 || moved > 1 {
		t.Errorf("the line in view has moved by %v pixels", moved)
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

// TestHands uses the page with a keyboard, on a phone and in full screen.
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

	// The Tab key reaches the link that skips to the text, and then all
	// controls.
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

	// After one line up, the page no longer follows the end when a word
	// arrives.
	press(kb.ArrowUp)
	b.holds("the way back is offered", `!document.querySelector('#latest').hidden`)
	place := value[float64](b, `scrollY`)
	device(message{"text": "A word more. \n\n"}.String())
	b.shows("#text", "A word more.")
	b.holds("the place is kept", fmt.Sprintf(`Math.abs(scrollY - %v) < 45`, place)) // less than a line: the scroll may still be in progress
	press(kb.End)
	b.holds("End returns to the newest text, too", `document.querySelector('#latest').hidden`)

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

// TestMotion checks the animations at the end of a life, with and without the
// preference for reduced motion.
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
		t.Errorf("the visitor prefers reduced motion, and these animations ran: %s", names)
	}
	if n := value[int](b, moving); n != 0 {
		t.Errorf("the visitor prefers reduced motion, and %d animations run", n)
	}
	// Neither the selector * nor a script can reach the gauge's bar, so the
	// test examines its pixels. Two frames after a change of the figure, the
	// bar must have its new length.
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
		t.Errorf("the bar has not reached 97%%: at 90%% its colour is %v, not as dark as ink", picture.At(x, y))
	}
	b.silent()
}
