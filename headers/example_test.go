package headers_test

import (
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/relayguard/relayguard/headers"
)

func Example() {
	policy := headers.Strict()
	policy.CSP = policy.CSP.With("img-src", headers.Self, "data:")
	mw, err := headers.New(policy)
	if err != nil {
		panic(err) // every mistake in the policy
	}
	site := mw.Handler(http.NotFoundHandler())

	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Code, w.Header().Get("X-Frame-Options"))
	fmt.Println(w.Header().Get("Content-Security-Policy"))
	// Output:
	// 404 DENY
	// default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'
}

// Browsers report no error for a wrong policy. New returns every mistake in it.
func ExampleNew_incorrect() {
	_, err := headers.New(headers.Policy{
		FrameOptions: "ALLOW-FROM https://partner.example",
		CSP: headers.CSP{}.
			// A host called "self", and a nonce that everyone knows.
			With("script-src", "self", "'nonce-r4nd0m'").
			With("object-src", headers.None, "data:"),
		HSTS: headers.HSTS{MaxAge: headers.Year, Preload: true},
	})
	fmt.Println(err)
	fmt.Println(errors.Is(err, headers.ReasonUnquoted))
	// Output:
	// headers: Policy.FrameOptions is not one of the choices: "ALLOW-FROM https://partner.example"
	// headers: Policy.CSP["script-src"][0] is a keyword that needs single quotes; without them it is the name of a host: "self"
	// headers: Policy.CSP["script-src"][1] is a nonce that would be the same in every response; use NonceSource: "'nonce-r4nd0m'"
	// headers: Policy.CSP["object-src"] has 'none' next to other sources, so browsers ignore 'none'
	// headers: Policy.HSTS.Preload contradicts another value: Preload needs a MaxAge of a year and IncludeSubDomains, not "max-age=31536000; preload"
	// true
}

func ExampleMiddleware_With() {
	mw, _ := headers.New(headers.Strict())
	docs, err := mw.With(func(p *headers.Policy) {
		p.CacheControl = "public, max-age=3600" // added
		p.EmbedderPolicy = ""                   // removed
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/docs/", docs.Handler(http.NotFoundHandler()))
	site := mw.Handler(mux)

	for _, path := range []string{"/", "/docs/"} {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Printf("%s: %q %q\n", path, w.Header().Get("Cache-Control"), w.Header().Get("Cross-Origin-Embedder-Policy"))
	}
	// Output:
	// /: "" "require-corp"
	// /docs/: "public, max-age=3600" ""
}

// A library that writes its own 101, such as gorilla/websocket, gets the
// headers as an argument.
func ExampleMiddleware_Apply() {
	mw, _ := headers.New(headers.Baseline())
	upgrade := func(w http.ResponseWriter, r *http.Request) {
		head := make(http.Header)
		mw.Apply(head, r)
		// conn, err := upgrader.Upgrade(w, r, head)
		fmt.Println(head.Get("X-Content-Type-Options"))
	}
	upgrade(httptest.NewRecorder(), httptest.NewRequest("GET", "/ws", nil))
	// Output: nosniff
}

func ExampleNonceAttr() {
	policy := headers.Strict()
	policy.CSP = policy.CSP.With("script-src", headers.NonceSource, headers.StrictDynamic)
	policy.CacheControl = "no-store" // or a cache would reuse the nonce
	mw, err := headers.New(policy)
	if err != nil {
		panic(err)
	}
	page := template.Must(template.New("page").Parse(`<script {{.Nonce}}>start()</script>`))
	http.Handle("/", mw.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.Execute(w, map[string]any{"Nonce": headers.NonceAttr(r.Context())})
	})))
}

func ExampleParseCSP() {
	csp, err := headers.ParseCSP("Default-Src 'NONE';  img-src 'self' https://cdn.example")
	fmt.Println(csp, err)
	_, err = headers.ParseCSP("img-src 'self', script-src *")
	fmt.Println(err)
	// Output:
	// default-src 'none'; img-src 'self' https://cdn.example <nil>
	// headers: Content-Security-Policy: "img-src": "'self'," contains a character that is not allowed there
}

func ExampleNewReportHandler() {
	reports, err := headers.NewReportHandler(headers.ReportConfig{
		OnViolation: func(v headers.Violation) { fmt.Printf("%s blocked %s on %s\n", v.Directive, v.Blocked, v.Page) },
	})
	if err != nil {
		panic(err)
	}
	policy := headers.Strict()
	policy.ReportingEndpoints = []headers.Endpoint{{Name: "csp", URL: "/csp-reports"}}
	policy.CSP = policy.CSP.With("report-to", "csp").With("report-uri", "/csp-reports")
	http.Handle("POST /csp-reports", reports)

	const body = `{"csp-report":{"effective-directive":"img-src","blocked-uri":"https://ads.example/1?u=me","document-uri":"https://relay.example/"}}`
	reports.Receive("application/csp-report", []byte(body))
	// The second report is counted, but OnViolation is not called again.
	reports.Receive("application/csp-report", []byte(body))
	fmt.Println(reports.Stats().Accepted)
	// Output:
	// img-src blocked https://ads.example on /
	// 2
}

func ExampleGrade() {
	h := http.Header{}
	h.Set("Content-Security-Policy", "default-src 'self'; connect-src 'self' wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	g := headers.Grade(h, true)
	fmt.Println(g.Score, g.Grade)
	for _, f := range g.Findings {
		if f.Points < 0 || f.Remark && f.Test == "Content-Security-Policy" {
			fmt.Fprintln(os.Stdout, f.Points, f.Test+":", f.Reason)
		}
	}
	// Output:
	// 105 A+
	// -5 x-content-type-options: absent
	// 0 Content-Security-Policy: connect-src allows wss:, so scripts can send data to any host
}
