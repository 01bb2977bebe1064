package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/internal/freeport"
	"github.com/relayguard/relayguard/internal/redistest"
)

// The address in a shared link's picture is the site's own, and never a text
// that a client made up.
func TestSharedPicture(t *testing.T) {
	for _, tc := range []struct {
		host    string
		origins []string
		want    string // empty if the page names no picture
		why     string
	}{
		{"art.example", nil, "http://art.example/share.png", "the host that the client requested"},
		{"art.example:8443", nil, "http://art.example:8443/share.png", "with a port"},
		{"[::1]:3000", nil, "http://[::1]:3000/share.png", "an address"},
		{"other.example", []string{"https://art.example", "https://b.example"}, "https://art.example/share.png", "the first of ALLOWED_ORIGINS"},
		{"a;b", nil, "", "not a host"},
	} {
		s := start(t, func(c *config.Config) { c.Origins = tc.origins })
		r, err := http.NewRequest("GET", "http://"+s.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = tc.host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(page), `property="og:image" content="`)
		got, _, _ := strings.Cut(rest, `"`)
		if found != (tc.want != "") || got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.why, got, tc.want)
		}
	}
}

// Only the listed origins may show the page in a frame, and only the page: every
// other answer keeps its headers.
func TestEmbedding(t *testing.T) {
	s := start(t, func(c *config.Config) { c.EmbedOrigins = []string{"https://museum.example", "https://b.example:8443"} })
	for _, tc := range []struct {
		path                       string
		frames, options, resources string
	}{
		{"/", "frame-ancestors https://museum.example https://b.example:8443;", "", "cross-origin"},
		{"/?wall", "frame-ancestors https://museum.example https://b.example:8443;", "", "cross-origin"},
		{"/app.js", "frame-ancestors 'none';", "DENY", "same-origin"},
		{"/qr.svg", "frame-ancestors 'none';", "DENY", "same-origin"},
		{"/nowhere", "frame-ancestors 'none';", "DENY", "same-origin"},
		{"/ws", "frame-ancestors 'none';", "DENY", "same-origin"},
	} {
		res, _ := s.get(tc.path)
		h := res.Header
		if !strings.Contains(h.Get("Content-Security-Policy"), tc.frames) || h.Get("X-Frame-Options") != tc.options || h.Get("Cross-Origin-Resource-Policy") != tc.resources {
			t.Errorf("%s: %s; %q; %q", tc.path, h.Get("Content-Security-Policy"), h.Get("X-Frame-Options"), h.Get("Cross-Origin-Resource-Policy"))
		}
	}
}

// The page is that of PAGE_DIR with an engine and without one, and while the
// server waits for its engine.
func TestOwnPage(t *testing.T) {
	dir := testkit.Folder(t, "page.json", `{"title": "The full box"}`)
	cfg, err := config.Load(environment(map[string]string{"PAGE_DIR": dir}))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*testSite{
		"without an engine": start(t, func(c *config.Config) { c.Page = cfg.Page }),
		"starting":          newNode(t, freeport.Addr(t), "PAGE_DIR="+dir).run().is(http.StatusServiceUnavailable, "starting").testSite,
		"with an engine":    readyNode(t, redistest.Start(t).Addr, "PAGE_DIR="+dir).testSite,
	} {
		if _, body := s.get("/"); !strings.Contains(body, "<title>The full box</title>") {
			t.Errorf("%s: %s", name, body)
		}
	}
}
