package browser_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// browser is a real browser with the page open.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	found []string
}

// open starts a browser with the page at url. flags are flags of Chromium.
func open(t *testing.T, url string, flags ...string) *browser {
	t.Helper()
	path := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true))
	for _, flag := range flags {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	b := &browser{t: t}
	b.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	enable := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{})
		return err
	})
	b.do(enable, chromedp.EmulateViewport(1366, 768), chromedp.Navigate(url))
	return b
}

// chromium returns the path of a browser. If there is none, the test is
// skipped.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	testkit.Missing(t, "no browser: install Chromium (on Debian: apt-get install chromium)")
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
		if !fromNetwork(e.Entry) && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			what = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	}
	if what != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.found = append(b.found, what)
	}
}

// fromNetwork reports whether the browser itself logged the entry, because the
// server is stopped or the endpoint refused the connection. A page cannot
// prevent such entries.
func fromNetwork(e *log.Entry) bool {
	if strings.HasPrefix(e.Text, "WebSocket connection to ") {
		return true
	}
	// The browser requests it some time after the page, and the server may be
	// stopped by then. TestScreenshots checks that it is an image.
	if strings.HasPrefix(e.Text, "Error while trying to use the following icon from the Manifest: ") && strings.Contains(e.Text, "(Download error ") {
		return true
	}
	return e.Source == log.EntrySourceNetwork && strings.HasPrefix(e.Text, "Failed to load resource") &&
		(strings.HasSuffix(e.URL, "/ws") || strings.Contains(e.Text, "ERR_CONNECTION_REFUSED"))
}

func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.found
}

// silent fails the test if the console shows anything.
func (b *browser) silent() {
	b.t.Helper()
	for _, complaint := range b.complaints() {
		b.t.Errorf("the console shows: %s", complaint)
	}
}

// heard waits until the complaints after the first n contain each of the words.
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

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, relay.Patience)
	defer cancel()
	// The first use of b.ctx starts the browser, which must not end with ctx.
	if err := chromedp.Do(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// holds waits until a JavaScript expression is true.
func (b *browser) holds(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, relay.Patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		seen, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("not true: %s (%v); the page shows:\n%s\nthe console shows: %q", what, err, seen, b.complaints())
	}
}

// comes waits like holds, also while the page is loaded again.
func (b *browser) comes(what, expression string) {
	b.t.Helper()
	testkit.Eventually(b.t, what, func() bool {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		return err == nil && ok
	})
}

// shows waits until the element's text contains text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.holds(selector+" shows "+text, fmt.Sprintf(`document.querySelector(%q).textContent.includes(%s)`, selector, quoted))
}

// says waits until the text of the state matches the pattern.
func (b *browser) says(pattern string) {
	b.t.Helper()
	b.holds("the state matches "+pattern, fmt.Sprintf(`/%s/.test(document.querySelector('#state').textContent)`, pattern))
}

// watch records the texts of all states from now on, even short ones, for said.
func (b *browser) watch() {
	b.t.Helper()
	value[int](b, `(() => {
		const state = document.querySelector('#state');
		window.said = [];
		new MutationObserver(() => window.said.push(state.textContent)).observe(state, { childList: true });
		return 0;
	})()`)
}

// said waits until the recorded states match all patterns, in this order.
func (b *browser) said(patterns ...string) {
	b.t.Helper()
	list, _ := json.Marshal(patterns)
	b.holds("the states come in this order: "+string(list), fmt.Sprintf(
		`window.said.reduce((left, words) => left.length > 0 && new RegExp(left[0]).test(words) ? left.slice(1) : left, %s).length === 0`, list))
}

// value evaluates an expression. If the result is a promise, it waits for its
// value.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, relay.Patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// prefers sets the visitor's preferences, as pairs of a media feature and its
// value. It resets all others.
func (b *browser) prefers(features ...string) {
	b.t.Helper()
	var p emulation.SetEmulatedMediaParams
	for i := 0; i+1 < len(features); i += 2 {
		p.Features = append(p.Features, &emulation.MediaFeature{Name: features[i], Value: features[i+1]})
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, p); err != nil {
		b.t.Fatal(err)
	}
}

// painted waits for two frames. After that, all earlier changes are painted.
func (b *browser) painted() {
	b.t.Helper()
	value[int](b, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))`)
}

// picture returns a PNG of the window's content.
func (b *browser) picture() []byte {
	b.t.Helper()
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	return picture
}

// frameText returns the text of the first frame, through the process that shows
// it: a page of another origin cannot read it.
func (b *browser) frameText() string {
	b.t.Helper()
	tree, err := chromedp.Call(b.ctx, page.GetFrameTree, cdp.Empty{})
	if err != nil || len(tree.FrameTree.ChildFrames) == 0 {
		return ""
	}
	world, err := chromedp.Call(b.ctx, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: tree.FrameTree.ChildFrames[0].Frame.ID})
	if err != nil {
		return ""
	}
	result, err := chromedp.Call(b.ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: `document.body.innerText`, ContextID: world.ExecutionContextID, ReturnByValue: new(true)})
	if err != nil {
		return ""
	}
	return string(result.Result.Value)
}

// framed waits until the first frame shows a text.
func (b *browser) framed(text string) {
	b.t.Helper()
	testkit.Eventually(b.t, "the frame shows "+text, func() bool { return strings.Contains(b.frameText(), text) })
}

// message is a message of a device.
type message map[string]any

func (m message) String() string {
	b, _ := json.Marshal(m)
	return string(b)
}

func memory(percent float64) map[string]any {
	const total = 3906
	return map[string]any{"available_mb": total * (100 - percent) / 100, "percent_used": percent, "total_mb": total}
}

// publisher authenticates a device, and returns a function that sends its
// messages.
func publisher(t *testing.T, server *relay.Server) func(message string) {
	t.Helper()
	return publisherAt(t, server, "", server.Token())
}

// publisherIn is publisher for the device and the room of this name.
func publisherIn(t *testing.T, server *relay.Server, room string) func(message string) {
	t.Helper()
	return publisherAt(t, server, "?room="+room, server.Verb("token", "-device", room))
}

func publisherAt(t *testing.T, server *relay.Server, query, token string) func(message string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, "ws://"+server.Addr+"/ws"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(-1)
	send := func(message string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, relay.Patience)
		defer cancel()
		if err := ws.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	send(`{"token":"` + token + `"}`)
	for {
		ctx, cancel := context.WithTimeout(ctx, relay.Patience)
		_, data, err := ws.Read(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(data), `{"status":"authenticated"`) {
			// A device receives its own messages too. They must be read, or
			// they would fill its socket.
			go func() {
				for err == nil {
					_, _, err = ws.Read(context.Background())
				}
			}()
			return send
		}
	}
}
