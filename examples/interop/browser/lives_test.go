package browser_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// keepsLives starts a server that keeps lives.
func keepsLives(t *testing.T) *relay.Server {
	t.Helper()
	server := relay.New(t, "LIVES_DIR="+filepath.Join(t.TempDir(), "lives"), "HISTORY_KEY=PVpLzpAmPvH0hqZ0mRVTvgBRVbVnNrLmzaBtLzLLdNE")
	server.Start()
	return server
}

// keptLives returns the IDs of the lives that the server keeps.
func keptLives(t *testing.T, server *relay.Server) (ids []string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+server.Addr+"/lives", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	var list struct{ Lives []struct{ ID string } }
	if err != nil || json.Unmarshal(body, &list) != nil {
		t.Fatal(err, string(body))
	}
	for _, l := range list.Lives {
		ids = append(ids, l.ID)
	}
	return ids
}

// TestLives sees a life end, finds it in the list, and sees it again.
func TestLives(t *testing.T) {
	server := keepsLives(t)
	b := open(t, "http://"+server.Addr+"/lives")
	b.shows("main", "No life has ended yet.")
	b.accessible(axe(t), "an empty list")

	b.do(chromedp.Navigate("http://" + server.Addr + "/"))
	b.says(`^Connected`)
	device := publisher(t, server)
	words := strings.SplitAfter(passage, " ")
	device(message{"text": words[0], "prompt": "Think aloud.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
	for _, word := range words[1:] {
		device(message{"text": word}.String())
	}
	device(message{"text": "the last word.", "memory": memory(97)}.String())
	b.shows("#text", "the last word.")
	device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 5}}.String())
	testkit.Eventually(t, "the life to be kept", func() bool { return len(keptLives(t, server)) == 1 })
	b.shows("#birth", "Life 5 ended at")
	if text := value[string](b, `document.querySelector('#birth').textContent`); strings.Contains(text, "remains") {
		t.Errorf("the page says that nothing remains: %q", text)
	}
	device(message{"text": "another mind", "memory": memory(20)}.String())
	device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 6}}.String())
	testkit.Eventually(t, "the second life to be kept", func() bool { return len(keptLives(t, server)) == 2 })

	b.holds("the page leads to the list", `document.querySelector('.kept a').textContent === 'Lives that have ended'`)
	value[int](b, `(document.querySelector('.kept a').click(), 0)`)
	b.comes("the list", `document.querySelectorAll('.lives li').length === 2`)
	b.shows(".lives li:last-child", "Life 5")
	b.shows(".lives li:last-child", "97%")
	b.holds("the times are local", `!document.querySelector('.lives time').textContent.includes('UTC')`)
	pictures(b, "lives")
	b.accessible(axe(t), "a list")

	value[int](b, `(document.querySelector('.lives li:last-child a').click(), 0)`)
	b.comes("the life", `document.documentElement.dataset.started === '' && document.querySelector('#speed') !== null`)
	b.shows("h2#life", "Life 5")
	// All of it came within moments, so it is over soon.
	b.says(`^Life 5 has ended\.$`)
	b.shows("#text", "the last word.")
	b.shows("#percent", "97%")
	b.shows("#prompt", "Think aloud.")
	b.shows("#announce", "has ended")
	pictures(b, "life")
	b.accessible(axe(t), "a life")

	// By the keyboard: from the beginning, and a pause.
	value[int](b, `(document.querySelector('#pause').focus(), 0)`)
	b.shows("#pause", "From the beginning")
	b.do(chromedp.KeyEvent("\r"))
	b.says(`^Life 5 has ended\.$`)
	value[int](b, `(() => { const s = document.querySelector('#speed'); s.value = 'all'; s.dispatchEvent(new Event('change')); return 0; })()`)
	b.shows("#text", "the last word.")
	if text := value[string](b, `document.querySelector('#text').textContent`); strings.Count(text, "the last word.") != 1 {
		t.Errorf("the text is there more than once: %q", text)
	}
	b.silent()
}

// TestLifeInItsTime shows a life whose second message comes much later: nothing
// shows it early, but all at once does, and so does a visitor's wish for no
// movement.
func TestLifeInItsTime(t *testing.T) {
	server := keepsLives(t)
	device := publisher(t, server)
	device(message{"text": "early ", "memory": memory(50), "status": map[string]any{"num_restarts": 0}}.String())
	// The time between two messages is that of the server's clock.
	first := keptLives(t, server)
	if len(first) != 0 {
		t.Fatal("it has ended")
	}
	b := open(t, "http://"+server.Addr+"/")
	b.shows("#text", "early")
	value[int](b, `new Promise((done) => setTimeout(() => done(0), 4000))`)
	device(message{"text": "late", "memory": memory(90)}.String())
	b.shows("#text", "late")
	device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 1}}.String())
	testkit.Eventually(t, "the life to be kept", func() bool { return len(keptLives(t, server)) == 1 })
	address := "http://" + server.Addr + "/lives/" + keptLives(t, server)[0]

	b.do(chromedp.Navigate(address))
	b.shows("#text", "early")
	value[int](b, `(document.querySelector('#pause').click(), 0)`)
	b.says(`Paused here\.$`)
	if text := value[string](b, `document.querySelector('#text').textContent`); strings.Contains(text, "late") {
		t.Error("the second message came too early")
	}
	b.shows("#pause", "Continue")
	b.accessible(axe(t), "a paused life")
	value[int](b, `(() => { const s = document.querySelector('#speed'); s.value = '16'; s.dispatchEvent(new Event('change')); return 0; })()`)
	b.shows("#text", "late")
	b.shows("#percent", "90%")

	b.prefers("prefers-reduced-motion", "reduce")
	b.do(chromedp.Navigate(address))
	b.says(`^Life 1 has ended\.$`)
	if speed := value[string](b, `document.querySelector('#speed').value`); speed != "all" {
		t.Errorf("without movement, the speed is %q", speed)
	}
	b.silent()
}

// pictures makes pictures of the page on a phone, a laptop and a wall.
func pictures(b *browser, name string) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		for _, size := range [][2]int64{{1280, 800}, {360, 740}, {3840, 2160}} {
			b.prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
			b.do(chromedp.EmulateViewport(size[0], size[1]))
			b.painted()
			b.pictureOf(fmt.Sprintf("%s-%s-%d", name, scheme, size[0]))
		}
	}
}
