package browser_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestEvents shows the page in a network that lets no WebSocket pass: it is
// live all the same, and after an outage too.
func TestEvents(t *testing.T) {
	server := relay.New(t)
	server.Start()
	door := newDoor(t, server)
	door.noUpgrades()
	device := publisher(t, server)
	device(message{"text": "Before. ", "prompt": "Think.", "memory": memory(63)}.String())
	b := open(t, door.url)
	b.comes("the text from before", `document.body.innerText.includes("Before.")`)
	device(message{"text": "Live. "}.String())
	b.comes("a live text", `document.body.innerText.includes("Before. Live.")`)
	b.says(`^Live`)
	b.holds("events", `performance.getEntriesByType("resource").some((r) => r.name.includes("/events"))`)
	b.pictureOf("events")
	b.accessible(axe(t), "events")
	door.cut()
	for i := range 3 {
		device(message{"text": fmt.Sprint(i, " ")}.String())
	}
	b.comes("all of it once", `document.body.innerText.includes("Before. Live. 0 1 2")`)
}

// later lets a test move the clock of the page on, as window.later(ms).
const later = `{
	const now = performance.now.bind(performance);
	let more = 0;
	performance.now = () => now() + more;
	window.later = (ms) => { more += ms; };
}`

// sources counts the streams of events that the page has opened, and sockets the
// WebSockets that have opened.
const countOpened = `window.sources = 0; window.sockets = 0;
	window.EventSource = class extends EventSource {
		constructor(...args) { super(...args); window.sources += 1; }
	};
	window.WebSocket = class extends WebSocket {
		constructor(...args) { super(...args); this.addEventListener('open', () => { window.sockets += 1; }); }
	};`

// TestEventsAndBack shows the page behind proxies that refuse upgrades in
// different ways. When one lets them pass at last, the page comes back to a
// WebSocket, and has everything once.
func TestEventsAndBack(t *testing.T) {
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	door := newDoor(t, server)
	device := publisher(t, server)
	device(message{"text": "Before. "}.String())
	b := open(t, "about:blank")
	b.before(later + countOpened)
	for i, row := range []struct {
		why    string
		answer func(http.ResponseWriter)
	}{
		{"a proxy that forbids upgrades", func(w http.ResponseWriter) { http.Error(w, "no WebSocket here", http.StatusForbidden) }},
		{"a proxy that fails on them", func(w http.ResponseWriter) { http.Error(w, "Bad Gateway", http.StatusBadGateway) }},
		{"a proxy that ends the connection", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		door.set(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				row.answer(w)
				return
			}
			door.proxy.ServeHTTP(w, r)
		})
		b.do(chromedp.Navigate(fmt.Sprint(door.url, "?", i)))
		b.comes(row.why+": the text from before", `document.body.innerText.includes("Before.")`)
		b.holds(row.why+": events, and no socket", `window.sources > 0 && window.sockets === 0`)
	}
	device(message{"text": "On events. "}.String())
	b.comes("a live text", `document.body.innerText.includes("On events.")`)
	door.open()
	b.holds("events still", `window.sockets === 0`)
	b.holds("a later time", `(window.later(301_000), true)`)
	b.comes("a socket", `window.sockets > 0`)
	device(message{"text": "On a socket. "}.String())
	b.comes("all of it once", `document.body.innerText.includes("Before. On events. On a socket.")`)
	b.says(`^Live`)
}
