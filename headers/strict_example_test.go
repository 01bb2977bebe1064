package headers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/relayguard/relayguard/headers"
)

// show prints what the policy sends in one header, or the parts of it that
// contain one of the words.
func show(p headers.Policy, name string, words ...string) {
	mw, err := headers.New(p)
	if err != nil {
		panic(err)
	}
	w := httptest.NewRecorder()
	mw.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	value, separator := w.Header().Get(name), ", "
	if name == "Content-Security-Policy" {
		separator = "; "
	}
	if len(words) == 0 {
		fmt.Printf("%s: %q\n", name, value)
	}
	for part := range strings.SplitSeq(value, separator) {
		for _, word := range words {
			if strings.Contains(part, word) {
				fmt.Println(part)
			}
		}
	}
}

// A button that copies text needs clipboard-write.
func ExampleStrict_clipboard() {
	p := headers.Strict()
	p.Permissions = p.Permissions.With("clipboard-write", headers.Self)
	show(p, "Permissions-Policy", "clipboard")
	// Output:
	// clipboard-read=()
	// clipboard-write=(self)
}

// A video of this site and an embedded one can fill the screen. The frame needs
// allow="fullscreen" as well.
func ExampleStrict_fullscreen() {
	const player = "https://www.youtube-nocookie.com"
	p := headers.Strict()
	p.Permissions = p.Permissions.With("fullscreen", headers.Self, player)
	p.CSP = p.CSP.Add("media-src", headers.Self).Add("frame-src", player)
	p.EmbedderPolicy = "" // the player does not send Cross-Origin-Embedder-Policy
	show(p, "Permissions-Policy", "fullscreen")
	show(p, "Content-Security-Policy", "media-src", "frame-src")
	// Output:
	// fullscreen=(self "https://www.youtube-nocookie.com")
	// media-src 'self'
	// frame-src https://www.youtube-nocookie.com
}

// A page that registers passkeys and signs users in with them.
func ExampleStrict_passkeys() {
	p := headers.Strict()
	p.Permissions = p.Permissions.
		With("publickey-credentials-create", headers.Self).
		With("publickey-credentials-get", headers.Self)
	show(p, "Permissions-Policy", "publickey")
	// Output:
	// publickey-credentials-create=(self)
	// publickey-credentials-get=(self)
}

// A page with the card form of Stripe, which is a frame of another origin.
func ExampleStrict_payment() {
	const stripe = "https://js.stripe.com"
	p := headers.Strict()
	p.Permissions = p.Permissions.With("payment", headers.Self, stripe)
	p.CSP = p.CSP.
		Add("script-src", stripe).
		Add("frame-src", stripe, "https://hooks.stripe.com").
		Add("connect-src", "https://api.stripe.com")
	p.EmbedderPolicy = "" // its frames do not send Cross-Origin-Embedder-Policy
	show(p, "Permissions-Policy", "payment")
	show(p, "Content-Security-Policy", "stripe")
	// Output:
	// payment=(self "https://js.stripe.com")
	// script-src 'self' https://js.stripe.com
	// connect-src 'self' https://api.stripe.com
	// frame-src https://js.stripe.com https://hooks.stripe.com
}

// The popup of a sign-in keeps the reference to the page that opened it, and
// the page to which it returns keeps it too.
func ExampleStrict_signIn() {
	p := headers.Strict()
	p.OpenerPolicy = headers.OpenerSameOriginAllowPopups
	show(p, "Cross-Origin-Opener-Policy")

	mw, _ := headers.New(p)
	back, err := mw.With(func(p *headers.Policy) { p.OpenerPolicy = headers.OpenerUnsafeNone })
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/signed-in", back.Handler(http.NotFoundHandler()))
	show(back.Policy(), "Cross-Origin-Opener-Policy")
	// Output:
	// Cross-Origin-Opener-Policy: "same-origin-allow-popups"
	// Cross-Origin-Opener-Policy: "unsafe-none"
}

// A new rule is only reported at first. The handler of the reports is a
// [headers.ReportHandler].
func ExamplePolicy_reportOnly() {
	p := headers.Strict()
	p.ReportingEndpoints = []headers.Endpoint{{Name: "reports", URL: "/reports"}}
	p.OpenerPolicy = p.OpenerPolicy.ReportTo("reports")
	p.IntegrityReportOnly = headers.Integrity{Scripts: true, ReportTo: "reports"}
	p.ConnectionsReportOnly = headers.Connections{Allow: []headers.Source{headers.Self}, ReportTo: "reports"}
	show(p, "Cross-Origin-Opener-Policy")
	show(p, "Integrity-Policy-Report-Only")
	show(p, "Connection-Allowlist-Report-Only")
	// Output:
	// Cross-Origin-Opener-Policy: "same-origin; report-to=\"reports\""
	// Integrity-Policy-Report-Only: "blocked-destinations=(script), endpoints=(reports)"
	// Connection-Allowlist-Report-Only: "(response-origin);report-to=reports"
}

// With replaces the sources that the directive had, and default-src no longer
// counts for it. Add keeps what was allowed.
func ExampleCSP_Add() {
	csp := headers.CSP{}.With("default-src", headers.Self)
	fmt.Println(csp.With("img-src", "data:"))
	fmt.Println(csp.Add("img-src", "data:"))
	// Output:
	// default-src 'self'; img-src data:
	// default-src 'self'; img-src 'self' data:
}

// A page that a museum's page shows in a frame. X-Frame-Options would forbid
// that to browsers that do not know frame-ancestors, so New refuses both
// together.
func ExampleStrict_embedded() {
	p := headers.Strict()
	p.CSP = p.CSP.With("frame-ancestors", "https://museum.example")
	_, err := headers.New(p)
	fmt.Println("with X-Frame-Options:", err != nil)
	p.FrameOptions = ""
	p.ResourcePolicy = headers.ResourceCrossOrigin // the museum's page has an EmbedderPolicy
	show(p, "X-Frame-Options")
	show(p, "Cross-Origin-Resource-Policy")
	show(p, "Content-Security-Policy", "frame-ancestors")
	// Output:
	// with X-Frame-Options: true
	// X-Frame-Options: ""
	// Cross-Origin-Resource-Policy: "cross-origin"
	// frame-ancestors https://museum.example
}
