package headers_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/headers"
)

// chromium is a browser whose console is recorded.
type chromium struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	console []string
}

func newChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		testkit.Missing(t, "no browser: install Chromium (on Debian: apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	b := &chromium{t: t}
	b.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.console = append(b.console, e.Entry.Text)
		}
	}))
	t.Cleanup(cancel)
	if err := chromedp.Do(b.ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, log.Enable, cdp.Empty{})
		return err
	})); err != nil {
		t.Fatal(err)
	}
	return b
}

// patience is the time for one step of a test. A step that needs it all has
// failed.
const patience = time.Minute

// open serves a page with the policy on a new origin, and forgets what the
// console showed before.
func (b *chromium) open(p headers.Policy, page string) {
	b.t.Helper()
	mw, err := headers.New(p)
	if err != nil {
		b.t.Fatal(err)
	}
	b.serve(mw.Apply, page)
}

// serve is open for headers that a Policy cannot have.
func (b *chromium) serve(apply func(http.Header, *http.Request), page string) {
	b.t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>t</title><body>"+page)
	})
	mux.HandleFunc("/script.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		io.WriteString(w, script)
	})
	var sent atomic.Bool
	mux.HandleFunc("/sent", func(w http.ResponseWriter, _ *http.Request) {
		sent.Store(true)
		w.WriteHeader(http.StatusNoContent) // the page stays
	})
	mux.HandleFunc("/was-sent", func(w http.ResponseWriter, r *http.Request) {
		if !sent.Load() {
			http.NotFound(w, r)
		}
	})
	mux.HandleFunc("/favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		apply(w.Header(), r)
		mux.ServeHTTP(w, r)
	}))
	b.t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	b.mu.Lock()
	b.console = nil
	b.mu.Unlock()
	// Browsers treat localhost as secure, and so apply every header.
	if err := chromedp.Do(ctx, chromedp.Navigate(strings.Replace(s.URL, "127.0.0.1", "localhost", 1))); err != nil {
		b.t.Fatal(err)
	}
}

const script = "window.ran = true"

func (b *chromium) shown() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.console)
}

// is evaluates a condition or a promise of one.
func (b *chromium) is(expression string) bool {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// neighbour is a site of another origin that answers every origin. Its page
// tells the page that opened it.
func neighbour(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, `<script>(opener ?? parent).postMessage(document.fullscreenEnabled, "*")</script>`)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Each row is a feature that Strict takes, and the change that gives it back by
// its documentation.
func TestWhatStrictTakes(t *testing.T) {
	other := neighbour(t)
	b := newChromium(t)
	feature := func(name string) string { return fmt.Sprintf("document.featurePolicy.allowsFeature(%q)", name) }
	allow := func(name string) func(*headers.Policy) {
		return func(p *headers.Policy) { p.Permissions = p.Permissions.With(name, headers.Self) }
	}
	for _, tt := range []struct {
		name, works string
		giveBack    func(*headers.Policy)
	}{
		{"copy to clipboard", feature("clipboard-write"), allow("clipboard-write")},
		{"full screen", "document.fullscreenEnabled", allow("fullscreen")},
		{"sign in by passkey", feature("publickey-credentials-get"), allow("publickey-credentials-get")},
		{"register a passkey", feature("publickey-credentials-create"), allow("publickey-credentials-create")},
		{"payment", feature("payment"), allow("payment")},
		{"forms", `new Promise((done) => {
			document.addEventListener("securitypolicyviolation", () => done(false));
			const form = document.body.appendChild(document.createElement("form"));
			form.action = "/sent";
			form.submit();
			const ask = () => fetch("/was-sent").then((r) => r.ok ? done(true) : setTimeout(ask, 20));
			ask();
		})`, func(p *headers.Policy) { p.CSP = p.CSP.Add("form-action", headers.Self) }},
		{"sign in by a popup", fmt.Sprintf(`new Promise((done) => {
			addEventListener("message", () => done(true));
			const popup = open(%q, "_blank", "width=100,height=100");
			const timer = setInterval(() => { if (popup.closed) { clearInterval(timer); done(false) } }, 20);
		})`, other), func(p *headers.Policy) { p.OpenerPolicy = headers.OpenerSameOriginAllowPopups }},
	} {
		p := headers.Strict()
		b.open(p, "")
		if b.is(tt.works) {
			t.Errorf("%s works with Strict: its documentation is wrong", tt.name)
		}
		tt.giveBack(&p)
		b.open(p, "")
		if !b.is(tt.works) {
			t.Errorf("%s does not work with what its documentation says", tt.name)
		}
	}
}

// Chromium enforces the newer headers in the form in which they are sent, and
// has no complaint about them.
func TestNewerHeaders(t *testing.T) {
	other := neighbour(t)
	b := newChromium(t)
	reaches := fmt.Sprintf(`fetch(%q).then(() => true, () => false)`, other)
	sum := sha256.Sum256([]byte(script))
	integrity := `<script crossorigin integrity="sha256-` + base64.StdEncoding.EncodeToString(sum[:]) + `" src="/script.js"></script>`
	const plain, ran = `<script src="/script.js"></script>`, "window.ran === true"
	connect := headers.CSP{}.With("connect-src", headers.Any)
	endpoints := []headers.Endpoint{{Name: "default", URL: "/reports"}, {Name: "other", URL: "/other"}}
	for _, tt := range []struct {
		why    string
		policy headers.Policy
		page   string
		test   string
		want   bool
	}{
		{"nothing forbids it", headers.Policy{CSP: connect}, "", reaches, true},
		{"one of two CSPs forbids it", headers.Policy{CSP: connect, MoreCSP: []headers.CSP{headers.CSP{}.With("connect-src", headers.Self)}}, "", reaches, false},
		{"one of two CSPs reports it", headers.Policy{CSP: connect, MoreCSPReportOnly: []headers.CSP{headers.CSP{}.With("connect-src", headers.Self)}}, "", reaches, true},
		{"not in the list", headers.Policy{Connections: headers.Connections{Allow: []headers.Source{headers.Self}}}, "", reaches, false},
		{"in the list", headers.Policy{Connections: headers.Connections{Allow: []headers.Source{headers.Self, headers.Source(other)}}}, "", reaches, true},
		{"in a pattern", headers.Policy{Connections: headers.Connections{Allow: []headers.Source{"http{s}?://127.0.0.1:*/*"}, Redirects: true, WebRTC: true, ReportTo: "other"}, ReportingEndpoints: endpoints}, "", reaches, true},
		{"only reported", headers.Policy{ConnectionsReportOnly: headers.Connections{Allow: []headers.Source{headers.None}}}, "", reaches, true},
		{"a script without integrity", headers.Policy{Integrity: headers.Integrity{Scripts: true, ReportTo: "other"}, ReportingEndpoints: endpoints}, plain, ran, false},
		{"a script with integrity", headers.Policy{Integrity: headers.Integrity{Scripts: true}}, integrity, ran, true},
		{"only reported", headers.Policy{IntegrityReportOnly: headers.Integrity{Scripts: true}}, plain, ran, true},
		{"COOP and COEP with endpoints isolate the page", headers.Policy{OpenerPolicy: headers.OpenerSameOrigin.ReportTo("other"), EmbedderPolicy: headers.EmbedderRequireCORP.ReportTo("other"), ReportingEndpoints: endpoints}, "", "crossOriginIsolated", true},
		{"COOP and COEP that only report do not", headers.Policy{OpenerPolicyReportOnly: headers.OpenerSameOrigin.ReportTo("other"), EmbedderPolicyReportOnly: headers.EmbedderRequireCORP.ReportTo("other"), ReportingEndpoints: endpoints}, "", "crossOriginIsolated", false},
		{"a feature is denied, with an endpoint", headers.Policy{Permissions: headers.Permissions{}.With("fullscreen").With("camera", headers.Self).ReportTo("other"), ReportingEndpoints: endpoints}, "", "document.fullscreenEnabled", false},
		{"a feature is only reported", headers.Policy{PermissionsReportOnly: headers.Permissions{}.With("fullscreen").ReportTo("other"), ReportingEndpoints: endpoints}, "", "document.fullscreenEnabled", true},
		{"the last known referrer policy counts", headers.Policy{ReferrerPolicy: headers.ReferrerNone + ", " + headers.ReferrerUnsafeURL}, `<iframe src="/?inner"></iframe>`, `new Promise((done) => {
			const frame = document.querySelector("iframe");
			const look = () => done(frame.contentDocument.referrer === location.href);
			frame.contentDocument.readyState === "complete" && frame.contentWindow.location.search ? look() : frame.onload = look;
		})`, true},
	} {
		b.open(tt.policy, tt.page)
		if got := b.is(tt.test); got != tt.want {
			t.Errorf("%s: %t, want %t; the console shows %q", tt.why, got, tt.want, b.shown())
		}
		for _, line := range b.shown() {
			if malformed.MatchString(line) {
				t.Errorf("%s: the console shows %s", tt.why, line)
			}
		}
	}
}

// A frame of another origin may use a feature only if the page may use it too,
// so New refuses the third row.
func TestPermissionsOfAFrame(t *testing.T) {
	other := neighbour(t)
	b := newChromium(t)
	for _, tt := range []struct {
		origins []headers.Source
		want    bool
	}{
		{nil, false}, {[]headers.Source{headers.Self}, false},
		{[]headers.Source{headers.Source(other)}, false},
		{[]headers.Source{headers.Self, headers.Source(other)}, true}, {[]headers.Source{headers.Any}, true},
	} {
		p := headers.Permissions{}.With("fullscreen", tt.origins...)
		b.serve(func(h http.Header, _ *http.Request) { h.Set("Permissions-Policy", p.String()) }, "")
		if got := b.is(fmt.Sprintf(`new Promise((done) => {
			addEventListener("message", (e) => done(e.data));
			const frame = document.createElement("iframe");
			frame.allow = "fullscreen";
			frame.src = %q;
			document.body.append(frame);
		})`, other)); got != tt.want {
			t.Errorf("%q: %t, want %t", tt.origins, got, tt.want)
		}
	}
}

// malformed matches complaints about a header itself, not about what it
// forbids.
var malformed = regexp.MustCompile(`(?i)header|unrecogni[sz]ed|pars(e|ing)|invalid`)
