package main

import (
	"bytes"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/headers/headerstest"
)

func serve(t *testing.T, log io.Writer) (string, *http.Client) {
	t.Helper()
	h, err := site(slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL, server.Client()
}

func TestEveryRouteHasTheHeaders(t *testing.T) {
	h, err := site(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	all, err := routes(nil)
	if err != nil {
		t.Fatal(err)
	}
	headerstest.Every(t, h, policy(), slices.Collect(maps.Keys(all))...)
}

// The policy allows every file and frame of the page.
func TestThePageWorks(t *testing.T) {
	url, client := serve(t, io.Discard)
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	csp, err := headers.ParseCSP(res.Header.Get("Content-Security-Policy"))
	if err != nil {
		t.Fatal(err)
	}
	directives := map[string]string{"link": "style-src", "script": "script-src", "iframe": "frame-src", "img": "img-src"}
	found := 0
	for _, m := range regexp.MustCompile(`<(link|script|iframe|img)\b[^>]*?(?:src|href)="(https://[^/"]+)([^"?]*)`).FindAllStringSubmatch(string(body), -1) {
		found++
		sources, _ := csp.Sources(directives[m[1]])
		if !slices.ContainsFunc(sources, func(s headers.Source) bool {
			rest, ok := strings.CutPrefix(m[2]+m[3], string(s))
			return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(string(s), "/"))
		}) {
			t.Errorf("%s refuses %s", directives[m[1]], m[2]+m[3])
		}
	}
	for _, file := range []string{"/style.css", "/shop.js"} {
		own, err := client.Get(url + file)
		if err != nil {
			t.Fatal(err)
		}
		own.Body.Close()
		if own.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", file, own.Status)
		}
	}
	if found != 6 {
		t.Errorf("%d files of other sites, want 6", found)
	}
	permissions := res.Header.Get("Permissions-Policy")
	for _, allowed := range []string{`payment=(self "https://js.stripe.com")`, `fullscreen=(self "https://www.youtube-nocookie.com")`, "camera=()"} {
		if !strings.Contains(permissions, allowed) {
			t.Errorf("Permissions-Policy lacks %s", allowed)
		}
	}
	if got := res.Header.Get("Cross-Origin-Opener-Policy"); got != "same-origin-allow-popups" {
		t.Errorf("the sign-in loses its opener: %q", got)
	}
}

// HSTS is sent only if the load balancer ended TLS.
func TestHSTS(t *testing.T) {
	url, client := serve(t, io.Discard)
	for proto, want := range map[string]bool{"https": true, "http": false, "": false} {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-Proto", proto)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Strict-Transport-Security") != ""; got != want {
			t.Errorf("%q: HSTS sent: %t", proto, got)
		}
	}
}

// A browser's report is logged once, without its query.
func TestReports(t *testing.T) {
	var log bytes.Buffer
	url, client := serve(t, &log)
	const report = `[{"type":"csp-violation","url":"https://shop.example/?user=7","body":{"effectiveDirective":"script-src-elem","blockedURL":"https://evil.example/x.js?secret"}}]`
	for range 2 {
		res, err := client.Post(url+"/reports", "application/reports+json", strings.NewReader(report))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			t.Errorf("got %s", res.Status)
		}
	}
	got := log.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "blocked=https://evil.example ") || strings.Contains(got, "secret") {
		t.Errorf("got %s", got)
	}
}
