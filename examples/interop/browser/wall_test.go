package browser_test

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	browserdomain "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// countLocks counts the requests to keep the screen on, as window.locks.
const countLocks = `window.locks = 0;
	if (navigator.wakeLock) {
		const request = WakeLock.prototype.request;
		WakeLock.prototype.request = function (...args) { window.locks += 1; return request.apply(this, args); };
	}`

// before makes each later document run a script first.
func (b *browser) before(script string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		b.t.Fatal(err)
	}
}

// shownControls lists the controls that a visitor can see.
const shownControls = `[...document.querySelectorAll('button, .skip')].filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().bottom > 0).map((e) => e.id || e.className).join(' ')`

// tellAll publishes the text of the screenshots, with all that a label shows.
func tellAll(b *browser, server *relay.Server) func(string) {
	b.t.Helper()
	device := publisher(b.t, server)
	device(message{"text": passage, "prompt": "You are a mind in a small machine. Think.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
	b.shows("#text", "So let me say it once more")
	return device
}

// TestWall shows the page on walls of every shape: no controls, no pointer, no
// scrollbar, a screen that stays on, and type by the smaller side.
func TestWall(t *testing.T) {
	source := axe(t)
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	b := open(t, "about:blank")
	b.before(countLocks)
	b.do(chromedp.Navigate("http://" + server.Addr + "/?wall&qr"))
	device := tellAll(b, server)
	b.holds("the screen stays on", `window.locks === 1`)
	b.everywhere("wall", func(where string) {
		if got := value[string](b, shownControls); got != "" {
			t.Errorf("%s: there are controls: %s", where, got)
		}
		for what, expression := range map[string]string{
			"a pointer":        `getComputedStyle(document.body).cursor === 'none' && getComputedStyle(document.documentElement).cursor === 'none' && getComputedStyle(document.querySelector('#text')).cursor === 'none'`,
			"a scrollbar":      `innerWidth === document.documentElement.clientWidth`,
			"type of the size": `Math.abs(parseFloat(getComputedStyle(document.documentElement).fontSize) - Math.max(14, Math.min(innerWidth, innerHeight) * 0.024)) < 0.1`,
			"words at the end": inView("#text > :last-child"),
			"the state":        inView("#state"),
			"the sentence":     inView(".about"),
			"the code":         inView(".colophon figure"),
		} {
			if !value[bool](b, expression) {
				t.Errorf("%s: not so: %s", where, what)
			}
		}
	})
	b.accessible(source, "wall")

	// No input scrolls it away, and it goes on with the newest words.
	b.do(chromedp.KeyEvent(kb.PageUp), chromedp.KeyEvent(kb.Home))
	value[int](b, `(dispatchEvent(new WheelEvent('wheel', { deltaY: -3000 })), 0)`)
	for range 30 {
		device(message{"text": "More of it.\n"}.String())
	}
	device(message{"text": "The newest."}.String())
	b.shows("#text", "The newest.")
	b.holds("the newest is in view", inView("#text > :last-child"))
	b.silent()
}

// TestKiosk opens the page in a browser in kiosk mode. Nothing is on it but the
// work until someone touches it.
func TestKiosk(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "about:blank", "kiosk", "start-fullscreen")
	// Two minutes without a touch are four seconds here.
	b.before(countLocks + `
		const later = setTimeout;
		window.setTimeout = (f, ms, ...rest) => later(f, ms === 120000 ? 4000 : ms, ...rest);`)
	b.do(chromedp.Navigate("http://" + server.Addr + "/"))
	tellAll(b, server)
	b.holds("nothing asks to be clicked", shownControls+` === ''`)
	b.holds("the pointer rests", `getComputedStyle(document.body).cursor === 'none'`)
	b.holds("the screen stays on", `window.locks === 1`)
	b.everywhere("kiosk", func(where string) {
		if !value[bool](b, `innerWidth === document.documentElement.clientWidth`) {
			t.Errorf("%s: there is a scrollbar", where)
		}
	})
	b.do(chromedp.KeyEvent(kb.Shift))
	b.holds("a touch brings the controls", shownControls+` !== ''`)
	b.holds("the button does not offer what it cannot do", `document.querySelector('#fullscreen').disabled`)
	b.holds("and they go again", shownControls+` === ''`)

	// Someone pauses it, scrolls up, and leaves. It goes on by itself.
	value[int](b, `(document.querySelector('#pause').click(), scrollBy({ top: -9999, behavior: 'instant' }), 0)`)
	b.shows("#state", "Paused here.")
	b.do(chromedp.KeyEvent(kb.Shift))
	b.holds("it goes on with the newest words", `!document.querySelector('#state').textContent.includes('Paused') && document.querySelector('#latest').hidden`)
	b.silent()
}

// TestF11 fills the screen with the window of a reader, and takes it back.
func TestF11(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "about:blank")
	b.before(countLocks)
	b.do(chromedp.Navigate("http://" + server.Addr + "/"))
	tellAll(b, server)
	window, err := chromedp.Call(b.ctx, browserdomain.GetWindowForTarget, browserdomain.GetWindowForTargetParams{})
	if err != nil {
		t.Fatal(err)
	}
	set := func(state browserdomain.WindowState) {
		t.Helper()
		bounds := browserdomain.SetWindowBoundsParams{WindowID: window.WindowID, Bounds: &browserdomain.Bounds{WindowState: state}}
		if _, err := chromedp.Call(b.ctx, browserdomain.SetWindowBounds, bounds); err != nil {
			t.Fatal(err)
		}
	}
	b.holds("it is a page", `!document.documentElement.classList.contains('full') && window.locks === 0`)
	set("fullscreen")
	b.holds("the screen stays on, and nothing asks to be clicked", `window.locks > 0 && `+shownControls+` === '' && getComputedStyle(document.body).cursor === 'none'`)
	set("normal")
	b.holds("it is a page again", `!document.documentElement.classList.contains('full') && getComputedStyle(document.body).cursor !== 'none' && `+shownControls+` !== ''`)
	b.silent()
}

// TestOverlay draws the words alone, over whatever is behind the page.
func TestOverlay(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "about:blank")
	b.do(chromedp.Navigate("http://" + server.Addr + "/?overlay"))
	// An opacity of 0 would be left out, and mean 1.
	clear := emulation.SetDefaultBackgroundColorOverrideParams{Color: &cdp.RGBA{A: 0.001}}
	if _, err := chromedp.Call(b.ctx, emulation.SetDefaultBackgroundColorOverride, clear); err != nil {
		t.Fatal(err)
	}
	tellAll(b, server)
	b.says(`^Live$`)
	b.everywhere("overlay", func(where string) {
		picture, err := png.Decode(bytes.NewReader(b.picture()))
		if err != nil {
			t.Fatal(err)
		}
		opaque, bounds := 0, picture.Bounds()
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
				if _, _, _, a := picture.At(x, y).RGBA(); a == 0xffff {
					opaque++
				}
			}
		}
		share := float64(opaque) / float64(bounds.Dx()*bounds.Dy())
		if _, _, _, a := picture.At(1, 1).RGBA(); a != 0 || share == 0 || share > 0.3 {
			t.Errorf("%s: the corner has the opacity %d, and %.2f of the picture is opaque", where, a, share)
		}
		if shown := value[string](b, `document.body.innerText`); !strings.Contains(shown, "So let me say it once more") || strings.Contains(shown, "63%") || strings.Contains(shown, "A mind filling") {
			t.Errorf("%s: it shows %q", where, shown)
		}
		if !value[bool](b, inView("#text > :last-child")) {
			t.Errorf("%s: the newest words are not in view", where)
		}
	})
	server.Stop()
	b.holds("what went wrong is in words", inView("#state")+` && document.querySelector('#state').textContent.includes('restarting')`)
	b.pictureOf("overlay-away")
	b.silent()
}

// TestCode reads the code of the page's address as a phone's camera does.
func TestCode(t *testing.T) {
	source := axe(t)
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	tellAll(b, server)
	for _, s := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(s.width, s.height))
			b.do(chromedp.Click(chromedp.CSS("#share")))
			b.holds("the code is shown", inView("#qr")+` && document.querySelector('#qr img').complete && document.querySelector('#qr img').naturalWidth > 0`)
			b.shows("#qr", "http://"+server.Addr+"/")
			b.painted()
			b.pictureOf("code-" + s.name + "-" + scheme)
			if got, want := b.read(), "http://"+server.Addr+"/"; got != want {
				t.Errorf("%s, %s: the code says %q, want %q", s.name, scheme, got, want)
			}
			b.do(chromedp.KeyEvent(kb.Escape))
			b.holds("it goes again", `!document.querySelector('#qr').open`)
		}
	}
	b.do(chromedp.EmulateViewport(1366, 768))
	b.do(chromedp.Click(chromedp.CSS("#share")))
	b.accessible(source, "the code")
	b.do(chromedp.Click(chromedp.CSS("#qr button")))
	b.holds("the button closes it", `!document.querySelector('#qr').open`)
	b.do(chromedp.Navigate("http://" + server.Addr + "/?wall&qr"))
	b.holds("the wall shows it all the time", inView(".colophon figure img")+` && document.querySelector('.colophon figure img').naturalWidth > 0`)
	b.painted()
	if got := b.read(); got != "http://"+server.Addr+"/" {
		t.Errorf("the code on the wall says %q", got)
	}
	b.silent()
}

// read returns the text of the QR code in the window. The reader finds no code
// in one of a thousand good pictures, by the size of the picture alone, so it
// looks from several distances, as a camera does that is moved.
func (b *browser) read() string {
	b.t.Helper()
	picture, err := png.Decode(bytes.NewReader(b.picture()))
	if err != nil {
		b.t.Fatal(err)
	}
	var text string
	for _, quarters := range []int{4, 5, 3, 8, 2} {
		bits, err := gozxing.NewBinaryBitmapFromImage(sized(picture, quarters))
		if err != nil {
			b.t.Fatal(err)
		}
		found, err := qrcode.NewQRCodeReader().Decode(bits, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
		if err == nil {
			return found.GetText()
		}
		text = fmt.Sprintf("nothing: %v", err)
	}
	return text
}

// sized returns the picture with so many quarters of its width and height.
func sized(picture image.Image, quarters int) image.Image {
	size := picture.Bounds().Size().Mul(quarters).Div(4)
	out := image.NewGray(image.Rectangle{Max: size})
	for y := range size.Y {
		for x := range size.X {
			out.Set(x, y, picture.At(x*4/quarters, y*4/quarters))
		}
	}
	return out
}

// TestEmbed shows the page in a frame of a museum's page, which is isolated from
// other origins, and not in a frame of another page.
func TestEmbed(t *testing.T) {
	host := func(server **relay.Server) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
			// The line of the server's README.
			fmt.Fprintf(w, `<!doctype html><html lang="en"><title>A museum</title><link rel="icon" href="data:,"><h1>A museum</h1>
<iframe src="http://%s/" title="A mind filling its memory" allow="fullscreen; screen-wake-lock" style="width:100%%;height:36rem;border:0"></iframe>
<p>Below it.</p>`, (*server).Addr)
		}))
	}
	var server *relay.Server
	museum, stranger := host(&server), host(&server)
	defer museum.Close()
	defer stranger.Close()
	server = relay.New(t, "RATE_LIMIT_CONNECTIONS=1000", "EMBED_ORIGINS="+museum.URL)
	server.Start()
	b := open(t, "about:blank", "disable-site-isolation-trials")
	device := publisher(t, server)
	device(message{"text": passage, "prompt": "Think.", "memory": memory(63)}.String())
	b.do(chromedp.Navigate(museum.URL))
	for _, s := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(s.width, s.height))
			b.framed("So let me say it once more")
			b.pictureOf("embed-" + s.name + "-" + scheme)
		}
	}
	b.holds("the museum's page has its place", `scrollY === 0`)
	b.silent()

	b.do(chromedp.Navigate(stranger.URL))
	b.heard(0, "frame-ancestors")
	if text := b.frameText(); strings.Contains(text, "So let me") {
		t.Errorf("a stranger's page shows it: %q", text)
	}
}

// TestNewPage changes the page while the server is restarted. A wall loads it
// again, and a reader's page stays as it is.
func TestNewPage(t *testing.T) {
	dir := testkit.Folder(t, "page.json", `{"title": "The first title"}`)
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000", "PAGE_DIR="+dir)
	server.Start()
	wall, reader := open(t, "http://"+server.Addr+"/?wall"), open(t, "http://"+server.Addr+"/")
	for _, b := range []*browser{wall, reader} {
		b.says(`^Connected`)
		value[int](b, `(window.first = true, 0)`)
	}
	server.Stop()
	if err := os.WriteFile(filepath.Join(dir, "page.json"), []byte(`{"title": "The second title"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	server.Start()
	wall.comes("the wall has the new page", `document.querySelector('h1')?.textContent === 'The second title' && window.first === undefined`)
	wall.says(`^Connected`)
	wall.holds("it is a wall still", `document.documentElement.classList.contains('wall')`)
	reader.says(`^Connected`)
	if !value[bool](reader, `window.first === true`) {
		t.Error("the page of a reader was loaded again")
	}

	// The same page stays on the wall, and a text of the device comes.
	value[int](wall, `(window.second = true, 0)`)
	server.Stop()
	wall.says(`again in`)
	server.Start()
	wall.says(`^Connected`)
	device := publisher(t, server)
	device(message{"text": "After all that."}.String())
	wall.shows("#text", "After all that.")
	if !value[bool](wall, `window.second === true`) {
		t.Error("a page that had not changed was loaded again")
	}
	wall.silent()
	reader.silent()
}

// TestHalfAPage lets a server answer the page, and fail for all its parts. The
// page starts when they are there again.
func TestHalfAPage(t *testing.T) {
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	d := newDoor(t, server)
	d.halve(true)
	b := open(t, d.url+"?wall")
	b.holds("nothing starts", `document.readyState === 'complete' && !('started' in document.documentElement.dataset)`)
	d.halve(false)
	b.comes("the page starts", `/^Connected/.test(document.querySelector('#state')?.textContent)`)
}
