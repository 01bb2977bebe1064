package browser_test

import (
	"fmt"
	"testing"

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
