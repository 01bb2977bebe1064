package browser_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestStates goes through all states of the page. The page names each state, in
// a text that is readable in every view and accessible to screen readers, and
// the console shows no errors.
func TestStates(t *testing.T) {
	source := axe(t)
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000")
	server.Start()
	d := newDoor(t, server)
	b := open(t, "about:blank")
	var device func(string)

	for _, tc := range []struct {
		name string
		let  func() // causes the state, from the state of the previous row
		says string
	}{
		{"connecting", func() {
			d.hold()
			b.do(chromedp.Navigate(d.url))
		}, `^Connecting$`},
		{"listening", func() {
			d.open()
			b.do(chromedp.Navigate(d.url))
		}, `^Connected, waiting$`},
		{"live", func() {
			device = publisher(t, server)
			device(message{"text": "I think.\n\nAnd again. ", "prompt": "Think aloud, until there is no room.", "memory": memory(63), "status": map[string]any{"num_restarts": 4}}.String())
		}, `^Live$`},
		{"nobody publishes", func() {}, `^Quiet\. Nobody is publishing\.$`},
		{"connection lost", func() {
			b.watch()
			d.hold()
			d.cut()
			b.said(`^Connection lost\. Trying again in 1 s\.$`)
		}, `^Connection lost\. Trying again in 1 s\.$|^Connecting$`},
		{"cannot be reached", func() { d.slam() }, `^The server cannot be reached\. Trying again in \d+ s\.$`},
		{"a proxy whose server starts", func() {
			d.status(http.StatusBadGateway, 0)
			b.do(chromedp.Navigate(d.url))
		}, `^The server is restarting\. Trying again in \d+ s\.$`},
		{"too many connections, with the time left", func() {
			d.status(http.StatusTooManyRequests, 100)
			b.do(chromedp.Navigate(d.url))
		}, `^Refused: too many connections from your address\. Trying again in (9\d|10[01]) s\.$`},
		{"blocked", func() {
			d.status(http.StatusForbidden, 0)
			b.do(chromedp.Navigate(d.url))
		}, `^Refused: your address is blocked\. Trying again in \d+ s\.$`},
		{"no WebSocket comes through", func() {
			d.status(http.StatusUpgradeRequired, 0)
			b.do(chromedp.Navigate(d.url))
		}, `^The server answers, but opens no live connection\. Trying again in \d+ s\.$`},
		{"offline", func() {
			d.open()
			b.do(chromedp.Navigate(d.url))
			b.says(`^Connected`)
			b.offline(true)
			d.slam()
			d.cut()
		}, `^Your device is offline\.$`},
		{"online again", func() {
			d.open()
			b.offline(false)
		}, `^Connected, waiting$`},
		{"at the end of a life", func() {
			device(message{"text": "The last words. ", "memory": memory(97), "status": map[string]any{"num_restarts": 4}}.String())
			b.shows("#text", "The last words.")
			device(message{"text": "", "status": map[string]any{"is_restarting": true, "num_restarts": 5}}.String())
			b.shows("#birth", "Life 5 ended at")
			b.shows("#birth", "its memory 97% full. Nothing of it remains.")
			b.shows("#lives", "Life 6, after 5 restarts")
			b.shows("#announce", "Life 5 has ended. Life 6 begins.")
		}, `^Live$`},
	} {
		if !t.Run(tc.name, func(t *testing.T) {
			b.t = t
			tc.let()
			b.says(tc.says)
			b.accessible(source, tc.name)
		}) {
			break // the next row begins in the state at the end of this row
		}
	}
	b.t = t
	b.silent()
}

// offline makes the browser report that it is offline or online.
func (b *browser) offline(off bool) {
	b.t.Helper()
	state := network.OverrideNetworkStateParams{Offline: off, DownloadThroughput: -1, UploadThroughput: -1}
	if _, err := chromedp.Call(b.ctx, network.OverrideNetworkState, state); err != nil {
		b.t.Fatal(err)
	}
}

// TestLimited lets the server's own limit refuse a viewer. The window is so
// long that the page can have the time only from the server's answer.
func TestLimited(t *testing.T) {
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1", "RATE_LIMIT_WINDOW=10m")
	server.Start()
	ctx, cancel := context.WithTimeout(context.Background(), relay.Patience)
	defer cancel()
	other, _, err := websocket.Dial(ctx, "ws://"+server.Addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.CloseNow()

	b := open(t, "http://"+server.Addr+"/")
	b.says(`^Refused: too many connections from your address\. Trying again in (9|10|11) min\.$`)
	// This address has six attempts. None of the following counts: neither the
	// refused connections nor the page's requests for the reason.
	for range 4 {
		b.do(chromedp.Reload())
		b.says(`^Refused: too many connections`)
	}
	if err := other.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	server.Logged(`"msg":"disconnected"`)
	b.do(chromedp.Reload())
	b.says(`^Connected`)
	b.silent()
}

// TestComesBack checks that the page waits for the time in Retry-After, and
// then connects.
func TestComesBack(t *testing.T) {
	server := relay.New(t)
	server.Start()
	d := newDoor(t, server)
	d.status(http.StatusTooManyRequests, 3)
	b := open(t, d.url)
	b.says(`^Refused: too many connections`)
	left, seconds := 0, regexp.MustCompile(`\d+`)
	testkit.Eventually(t, "the seconds are shown", func() (shown bool) { // not while the page tries again
		var err error
		left, err = strconv.Atoi(seconds.FindString(value[string](b, `document.querySelector('#state').textContent`)))
		return err == nil
	})
	if left > 4 {
		t.Errorf("Retry-After is 3 s, and the page shows %d s", left)
	}
	d.open()
	b.says(`^Connected`)
	if n := value[int](b, `document.querySelectorAll('#announce p').length`); n > 3 {
		t.Errorf("a wait of seconds is announced %d times", n)
	}
	b.silent()
}

// TestBlocked opens the page from an address that has sent too many invalid
// tokens. It can watch until the operator blocks it.
func TestBlocked(t *testing.T) {
	server := relay.New(t, "RATE_LIMIT_CONNECTIONS=1000", "TRUSTED_PROXIES=none", "OPERATOR_ADDR=unix:"+filepath.Join(t.TempDir(), "operator.sock"))
	server.Start()
	ctx, cancel := context.WithTimeout(context.Background(), relay.Patience)
	defer cancel()
	for range 10 {
		ws, _, err := websocket.Dial(ctx, "ws://"+server.Addr+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(ctx, websocket.MessageText, []byte(`{"token":"x"}`)); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = ws.Read(ctx)
		}
		ws.CloseNow()
	}
	b := open(t, "http://"+server.Addr+"/")
	b.says(`^Connected`)
	server.Verb("block", "127.0.0.1")
	b.says(`^Refused: your address is blocked\.`)
	b.silent()
}

// TestRestart follows a viewer through a restart of the server, from the
// server's close frame to the first word after the restart.
func TestRestart(t *testing.T) {
	server := relay.New(t)
	server.Start()
	b := open(t, "http://"+server.Addr+"/")
	b.says(`^Connected`)
	b.watch()
	server.Stop()
	// The first attempt to reconnect fails, and the page does not announce
	// that.
	restarting := `^The server is restarting\. Trying again in \d+ s\.$`
	b.said(restarting, `^Connecting$`, restarting)
	heard := value[string](b, `document.querySelector('#announce').textContent`)
	if strings.Count(heard, "restarting") != 1 || strings.Contains(heard, "Connecting") {
		t.Errorf("a listener hears %q", heard)
	}
	server.Start()
	device := publisher(t, server)
	device(message{"text": "Back."}.String())
	b.shows("#text", "Back.")
	b.silent()
}
