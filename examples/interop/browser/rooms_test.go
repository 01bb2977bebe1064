package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestRooms goes from the list of rooms to a room, by the keyboard, and back.
func TestRooms(t *testing.T) {
	source := axe(t)
	server := relay.New(t, "ROOMS=pi-1,pi-2,a-room-with-a-name-that-is-as-long-as-a-name-may-be-here-ok", "ALLOWED_DEVICE_ID=pi-1,pi-2", "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	b.shows("#rooms", "pi-2")
	b.holds("nothing is there yet", `[...document.querySelectorAll('#rooms .state')].every((e) => e.textContent === 'Nothing yet')`)
	one, two := publisherIn(t, server, "pi-1"), publisherIn(t, server, "pi-2")
	one(message{"text": passage, "prompt": "You are the first.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
	two(message{"text": "Alone in the second. ", "memory": memory(92), "status": map[string]any{"num_restarts": 0}}.String())
	room := func(name string) string { return fmt.Sprintf(`document.querySelector('[data-room="%s"]')`, name) }
	b.holds("the list follows", room("pi-1")+`.textContent.replace(/\s+/g, ' ').trim() === 'pi-1 63% Life 5 Live' && `+room("pi-1")+`.querySelector('progress').value === 63`)
	b.holds("the water is that of the room", `getComputedStyle(`+room("pi-2")+`).getPropertyValue('--fill') == 92`)
	b.everywhere("rooms", nil)
	b.accessible(source, "the list of rooms")

	b.holds("the keyboard reaches the second room", `(() => { document.querySelectorAll('#rooms a')[1].focus(); return document.activeElement.textContent === 'pi-2'; })()`)
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("#state")))
	b.shows("#text", "Alone in the second.")
	b.shows(".room", "pi-2")
	b.shows("title", "pi-2 – ")
	b.says(`^Live$|^Quiet`)
	two(message{"text": "And on."}.String())
	b.shows("#text", "And on.")
	b.holds("the other room's text is not here", `!document.querySelector('#text').textContent.includes('hums')`)
	b.everywhere("room", func(where string) {
		if !value[bool](b, inView(".room")) {
			t.Errorf("%s: the room's name is not in view", where)
		}
	})
	b.accessible(source, "the page of a room")
	b.do(chromedp.Click(chromedp.CSS(".room a")), chromedp.WaitVisible(chromedp.CSS("#rooms")))
	b.shows("#rooms", "pi-1")

	server.Stop()
	b.shows("#trouble", "The server cannot be reached. Trying again in ")
	server.Start()
	b.holds("the list is back", `document.querySelector('#trouble').textContent === ''`)
	b.do(chromedp.Navigate("http://" + server.Addr + "/r/pi-1/?wall"))
	b.shows(".room", "pi-1")
	b.holds("no link on a wall", `!document.querySelector('.room a').checkVisibility()`)
	b.silent()
}

// TestRoomsBelow opens a room of a site that a proxy serves below a path, in a
// network that lets no WebSocket pass.
func TestRoomsBelow(t *testing.T) {
	server := relay.New(t, "ROOMS=*", "ALLOWED_DEVICE_ID=pi-1", "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	target := &url.URL{Scheme: "http", Host: server.Addr}
	proxy := httptest.NewServer(http.StripPrefix("/art", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Upgrade")
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target); p.Out.Host = p.In.Host }, FlushInterval: -1}).ServeHTTP(w, r)
	})))
	t.Cleanup(proxy.Close)
	b := open(t, proxy.URL+"/art/")
	b.do(chromedp.Click(chromedp.CSS("#rooms a")), chromedp.WaitVisible(chromedp.CSS("#state")))
	publisherIn(t, server, "pi-1")(`{"text":"By events."}`)
	b.shows("#text", "By events.")
	b.holds("it is below the path", `location.pathname === '/art/r/pi-1/'`)
}
