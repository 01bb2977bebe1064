package browser_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"nhooyr.io/websocket"
)

// TestPage follows one viewer through what happens to an installation: words
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
	device(`{"text":" And on."}`) // the words before may have come as history
	b.shows("#state", "Live")

	for _, complaint := range b.complaints() {
		t.Errorf("the console shows: %s", complaint)
	}

	// The same ears, shown that they hear: an error, and what the policy forbids.
	before := len(b.complaints())
	b.holds("an inline script does not run", `(() => {
		console.error('heard');
		const script = document.createElement('script');
		try { script.textContent = 'window.ran = true'; document.body.append(script); } catch {}
		return window.ran !== true;
	})()`)
	b.heard(before, "heard", "TrustedScript")
}

// TestDemonstration looks at what the README's first command shows.
func TestDemonstration(t *testing.T) {
	server := relay.New(t)
	server.Start("-demo")
	began := time.Now()
	b := open(t, "http://"+server.Addr+"/")
	b.holds("words come", `document.querySelector('#text').textContent.trim().split(/\s+/).length >= 3`)
	t.Logf("three words are on the page %v after it was asked for", time.Since(began).Round(time.Millisecond))
	b.holds("so do real memory figures", `document.querySelector('#memory').value > 0`)
	b.holds("and a prompt", `document.querySelector('#prompt').textContent !== ''`)
	for _, complaint := range b.complaints() {
		t.Errorf("the console shows: %s", complaint)
	}
}

// browser is a real one with the page open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	found []string
}

func open(t *testing.T, url string) *browser {
	t.Helper()
	path := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	b := &browser{t: t}
	b.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	enable := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{})
		return err
	})
	if err := chromedp.Do(b.ctx, enable, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return b
}

// chromium finds a browser. Where none is, the test cannot say anything.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const how = "no browser: install Chromium (on Debian: apt-get install chromium)"
	if os.Getenv("CI") == "true" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}

func (b *browser) listen(event any) {
	var what string
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			what = fmt.Sprintf("console.%s", e.Type)
			for _, arg := range e.Args {
				what += " " + string(arg.Value)
			}
		}
	case *runtime.EventExceptionThrown:
		what = "exception: " + e.ExceptionDetails.Text
	case *log.EventEntryAdded:
		// The browser itself notes every connection that fails while the server is
		// stopped, and no page can keep it from that.
		stopped := e.Entry.Source == log.EntrySourceNetwork && strings.Contains(e.Entry.Text, "ERR_CONNECTION_REFUSED") ||
			strings.Contains(e.Entry.Text, "WebSocket connection to") && strings.Contains(e.Entry.Text, "ERR_CONNECTION_REFUSED")
		if !stopped && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			what = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	}
	if what != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.found = append(b.found, what)
	}
}

func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.found
}

// heard waits until complaints after the first n hold each of the words.
func (b *browser) heard(n int, words ...string) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(relay.Patience); time.Now().Before(deadline); <-tick.C {
		found := strings.Join(b.complaints()[n:], "\n")
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(found, w) }) {
			return
		}
	}
	b.t.Errorf("want complaints about %q, got %q", words, b.complaints()[n:])
}

// holds waits until a JavaScript expression is true.
func (b *browser) holds(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, relay.Patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		seen, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("not so: %s (%v); the page shows:\n%s\nand complains: %q", what, err, seen, b.complaints())
	}
}

// shows waits until the element's text holds text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.holds(selector+" shows "+text, fmt.Sprintf(`document.querySelector(%q).textContent.includes(%s)`, selector, quoted))
}

// publisher authenticates a device and returns its sending half.
func publisher(t *testing.T, server *relay.Server) func(message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), relay.Patience)
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, "ws://"+server.Addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	send := func(message string) {
		t.Helper()
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	send(`{"token":"` + server.Token() + `"}`)
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(data), `{"status":"authenticated"`) {
			return send
		}
	}
}
