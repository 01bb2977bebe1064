// Command thirdparties serves a shop's page with a card form of Stripe, a
// sign-in with Google in a popup, a video of YouTube, and fonts and analytics
// of Google. Its policy is that of [headers.Strict] with what these need.
package main

import (
	"cmp"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/relayguard/relayguard/headers"
)

const (
	stripe    = "https://js.stripe.com"
	google    = "https://accounts.google.com"
	youtube   = "https://www.youtube-nocookie.com"
	tags      = "https://www.googletagmanager.com"
	analytics = "https://*.google-analytics.com"
)

func policy() headers.Policy {
	p := headers.Strict()
	p.CSP = p.CSP.
		Add("script-src", stripe, google+"/gsi/client", tags).
		Add("style-src", google+"/gsi/style", "https://fonts.googleapis.com").
		Add("font-src", "https://fonts.gstatic.com").
		Add("frame-src", stripe, "https://hooks.stripe.com", google+"/gsi/", youtube).
		Add("connect-src", "https://api.stripe.com", google+"/gsi/", analytics).
		Add("img-src", "https://i.ytimg.com", analytics).
		Add("form-action", headers.Self).
		Add("report-to", "default").
		Add("report-uri", "/reports") // for Firefox and Safari
	// Reported at first, to be enforced if no script needs more.
	p.CSPReportOnly = headers.CSP{}.With("require-trusted-types-for", "'script'").With("report-to", "default")
	p.Permissions = p.Permissions.
		With("payment", headers.Self, stripe).
		With("identity-credentials-get", headers.Self, google).
		With("fullscreen", headers.Self, youtube).
		With("autoplay", headers.Self, youtube)
	p.OpenerPolicy = headers.OpenerSameOriginAllowPopups // for the sign-in
	p.EmbedderPolicy = ""                                // the frames do not take part in it
	p.ReportingEndpoints = []headers.Endpoint{{Name: "default", URL: "/reports"}}
	p.Extra = map[string]string{"X-Permitted-Cross-Domain-Policies": "none"}
	// The load balancer ends TLS, sets this header itself, and also passes on
	// plain HTTP.
	p.HSTS.Secure = func(r *http.Request) bool { return r.Header.Get("X-Forwarded-Proto") == "https" }
	return p
}

//go:embed index.html style.css shop.js
var public embed.FS

func routes(log *slog.Logger) (map[string]http.Handler, error) {
	reports, err := headers.NewReportHandler(headers.ReportConfig{Log: log})
	return map[string]http.Handler{
		"GET /":          http.FileServerFS(public),
		"POST /checkout": http.RedirectHandler("/", http.StatusSeeOther),
		"POST /reports":  reports,
	}, err
}

func site(log *slog.Logger) (http.Handler, error) {
	routes, badReports := routes(log)
	secure, badPolicy := headers.New(policy())
	if err := errors.Join(badReports, badPolicy); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.Handle(pattern, h)
	}
	return secure.Handler(mux), nil
}

func main() {
	h, err := site(slog.Default())
	if err == nil {
		server := http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: h, ReadTimeout: 10 * time.Second}
		err = server.ListenAndServe()
	}
	slog.Error("stopped", "error", err)
	os.Exit(1)
}
