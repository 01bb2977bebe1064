package frameworks_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/ratelimit"
)

// The headers survive the 1xx responses of an upstream server under every
// router: 103 Early Hints, and 100 Continue to an upload.
func TestProxiedInformationalResponses(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") == "" {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		} else if _, err := r.Body.Read(make([]byte, 1)); err != nil { // sends 100 Continue
			t.Error(err)
		}
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		w.WriteHeader(http.StatusOK)
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range frameworks {
		t.Run(tt.name, func(t *testing.T) {
			secure, err := headers.New(headers.Strict())
			if err != nil {
				t.Fatal(err)
			}
			limiter, err := ratelimit.New(ratelimit.Config{Window: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			proxy := &httputil.ReverseProxy{
				Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
				ModifyResponse: func(res *http.Response) error { secure.Strip(res.Header); return nil },
			}
			// Both routes lead to the proxy; /ws also goes through the limiter.
			proxied := secure.Handler(proxy)
			s := httptest.NewServer(tt.site(secure, limiter.Handler, proxied, proxied))
			defer s.Close()
			c := client{t, s, secure}
			for _, path := range []string{"/", "/ws"} {
				for _, body := range []string{"", "upload"} {
					req, err := http.NewRequest("GET", s.URL+path, strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					if body != "" {
						req.Header.Set("Expect", "100-continue")
					}
					res, err := s.Client().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					c.check(res, http.StatusOK)
				}
			}
		})
	}
}
