package browser_test

import (
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestPage follows one viewer through the events of an installation: words
// arrive, a life ends and another begins, the server is restarted.
func TestPage(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")

	device := publisher(t, server)
	device(`{"text":"I wake ","prompt":"Think aloud.","memory":{"available_mb":2048,"percent_used":50,"total_mb":4096},"status":{"num_restarts":3}}`)
	device(`{"text":"<b>slowly</b>."}`)
	b.shows("#text", "I wake <b>slowly</b>.")
	b.shows("#prompt", "Think aloud.")
	b.shows("#lives", "3 restarts")
	b.shows("#state", "Live")
	b.holds("the gauge is at 50", `document.querySelector('#memory').value === 50`)
	b.holds("markup in the text is text", `document.querySelector('#text b') === null`)
	b.holds("a sentence is announced", `document.querySelector('#announce').textContent.includes('I wake')`)

	device(`{"text":"","status":{"is_restarting":true,"num_restarts":4}}`)
	device(`{"text":"Again."}`)
	b.shows("#text", "Again.")
	b.holds("the old life is gone", `!document.querySelector('#text').textContent.includes('I wake')`)
	b.shows("#lives", "4 restarts")

	server.Stop()
	b.holds("the page says that it waits", `/again in/i.test(document.querySelector('#state').textContent)`)
	server.Start()
	device = publisher(t, server)
	device(`{"text":"After the restart."}`)
	b.shows("#text", "After the restart.")
	device(`{"text":" And on."}`) // the earlier words may have arrived as history
	b.shows("#state", "Live")

	b.silent()

	// The console's check works: it reports an error and a violation of the
	// policy.
	before := len(b.complaints())
	b.holds("an inline script does not run", `(() => {
		console.error('heard');
		const script = document.createElement('script');
		try { script.textContent = 'window.ran = true'; document.body.append(script); } catch {}
		return window.ran !== true;
	})()`)
	b.heard(before, "heard", "TrustedScript")
}

// TestDemonstration checks the page of the README's first command.
func TestDemonstration(t *testing.T) {
	server := relay.New(t)
	server.Start("-demo")
	began := time.Now()
	b := open(t, "http://"+server.Addr+"/")
	b.holds("words come", `document.querySelector('#text').textContent.trim().split(/\s+/).length >= 3`)
	t.Logf("three words are on the page %v after the request for it", time.Since(began).Round(time.Millisecond))
	b.holds("so do real memory figures", `document.querySelector('#memory').value > 0`)
	b.holds("and a prompt", `document.querySelector('#prompt').textContent !== ''`)
	b.silent()
}
