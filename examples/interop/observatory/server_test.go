package observatory_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/headers"
)

// The graders find no flaw in the relay's page. The real server runs in
// production, behind a proxy that terminates TLS.
func TestServersPage(t *testing.T) {
	server := relay.New(t)
	server.Start()
	target := &url.URL{Scheme: "http", Host: server.Addr}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}}
	s := serveBoth(t, proxy)
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()

	v := ask(t, request{Hosts: []string{s.Listener.Addr().String()}, Policies: res.Header["Content-Security-Policy"]}, s.Certificate().Raw)
	scan, got := v.Scans[0], headers.Grade(res.Header, true)
	if _, score := asPublished(got); scan.Grade != "A+" || got.Grade != "A+" || score != scan.Score {
		t.Errorf("the Observatory has %d %s, Grade %d %s (%d by the published rules): %+v",
			scan.Score, scan.Grade, got.Score, got.Grade, score, scan.Results)
	}
	for _, f := range got.Findings {
		if f.Remark {
			t.Errorf("%s: %s", f.Test, f.Reason)
		}
	}
	for _, f := range v.Findings[0] {
		if f.Severity < informational {
			t.Errorf("csp_evaluator: %d %s: %s", f.Severity, f.Directive, f.Description)
		}
	}
}

// serveBoth serves a handler over TLS, and redirects plain HTTP on the same
// port to it.
func serveBoth(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	both := newSplitter(s.Listener)
	s.Listener = both.secure
	s.StartTLS()
	t.Cleanup(s.Close)
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+r.Host+r.RequestURI, http.StatusMovedPermanently)
	}))
	plain.Listener.Close()
	plain.Listener = both.plain
	plain.Start()
	t.Cleanup(plain.Close)
	return s
}
