// Command thirdparties is the service of examples/services/thirdparties with
// unrolled/secure instead of relayguard/headers. It sends the same headers and
// logs the same reports. The library has no field for Reporting-Endpoints and
// Origin-Agent-Cluster, no list of features to deny, and no handler of reports.
package main

import (
	"cmp"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unrolled/secure"
	"golang.org/x/time/rate"
)

const (
	stripe    = "https://js.stripe.com"
	google    = "https://accounts.google.com"
	youtube   = "https://www.youtube-nocookie.com"
	tags      = "https://www.googletagmanager.com"
	analytics = "https://*.google-analytics.com"
)

var allowed = map[string]string{
	"payment":                  `(self "` + stripe + `")`,
	"identity-credentials-get": `(self "` + google + `")`,
	"fullscreen":               `(self "` + youtube + `")`,
	"autoplay":                 `(self "` + youtube + `")`,
}

var features = []string{
	"accelerometer", "aria-notify", "autoplay", "bluetooth", "camera", "captured-surface-control",
	"ch-ua-high-entropy-values", "clipboard-read", "clipboard-write", "compute-pressure", "cross-origin-isolated",
	"deferred-fetch", "deferred-fetch-minimal", "digital-credentials-create", "digital-credentials-get",
	"display-capture", "encrypted-media", "fullscreen", "gamepad", "geolocation", "gyroscope", "hid",
	"identity-credentials-get", "idle-detection", "keyboard-map", "language-detector", "language-model",
	"local-fonts", "local-network", "local-network-access", "loopback-network", "magnetometer",
	"media-playback-while-not-visible", "microphone", "midi", "on-device-speech-recognition", "otp-credentials",
	"payment", "picture-in-picture", "private-state-token-issuance", "private-state-token-redemption",
	"publickey-credentials-create", "publickey-credentials-get", "screen-wake-lock", "serial", "speaker-selection",
	"storage-access", "summarizer", "sync-xhr", "translator", "unload", "usb", "web-share", "window-management",
	"xr-spatial-tracking",
}

func options() secure.Options {
	var permissions []string
	for _, f := range features {
		permissions = append(permissions, f+"="+cmp.Or(allowed[f], "()"))
	}
	return secure.Options{
		ContentTypeNosniff: true,
		FrameDeny:          true,
		BrowserXssFilter:   true,
		ReferrerPolicy:     "strict-origin-when-cross-origin",
		ContentSecurityPolicy: strings.Join([]string{
			"default-src 'none'",
			"script-src 'self' " + stripe + " " + google + "/gsi/client " + tags,
			"style-src 'self' " + google + "/gsi/style https://fonts.googleapis.com",
			"connect-src 'self' https://api.stripe.com " + google + "/gsi/ " + analytics,
			"img-src 'self' https://i.ytimg.com " + analytics,
			"base-uri 'none'",
			"form-action 'self'",
			"frame-ancestors 'none'",
			"object-src 'none'",
			"font-src https://fonts.gstatic.com",
			"frame-src " + stripe + " https://hooks.stripe.com " + google + "/gsi/ " + youtube,
			"report-to default",
			"report-uri /reports",
		}, "; "),
		ContentSecurityPolicyReportOnly: "require-trusted-types-for 'script'; report-to default",
		PermissionsPolicy:               strings.Join(permissions, ", "),
		CrossOriginOpenerPolicy:         "same-origin-allow-popups",
		CrossOriginResourcePolicy:       "same-origin",
		XPermittedCrossDomainPolicies:   "none",
		STSSeconds:                      31536000,
		STSIncludeSubdomains:            true,
		SSLProxyHeaders:                 map[string]string{"X-Forwarded-Proto": "https"},
	}
}

// violation is what is kept of a report. A stranger can send one, so no text of
// it is logged as it is.
type violation struct{ directive, blocked, page string }

type reports struct {
	log   *slog.Logger
	limit *rate.Limiter
	mu    sync.Mutex
	seen  map[violation]bool
}

func (h *reports) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer w.WriteHeader(http.StatusNoContent)
	if !h.limit.Allow() {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		return
	}
	type fields struct {
		Effective    string `json:"effectiveDirective"`
		Blocked      string `json:"blockedURL"`
		OldEffective string `json:"effective-directive"`
		OldBlocked   string `json:"blocked-uri"`
		OldPage      string `json:"document-uri"`
	}
	type report struct {
		URL  string  `json:"url"`
		Body fields  `json:"body"`
		Old  *fields `json:"csp-report"`
	}
	var list []report
	if json.Unmarshal(body, &list) != nil {
		var one report
		if json.Unmarshal(body, &one) != nil {
			return
		}
		list = []report{one}
	}
	for _, one := range list[:min(len(list), 100)] {
		v := violation{one.Body.Effective, origin(one.Body.Blocked), path(one.URL)}
		if one.Old != nil {
			v = violation{one.Old.OldEffective, origin(one.Old.OldBlocked), path(one.Old.OldPage)}
		}
		if strings.Trim(v.directive, "abcdefghijklmnopqrstuvwxyz-") != "" || len(v.directive) > 40 {
			v.directive = "other"
		}
		h.mu.Lock()
		known := h.seen[v] || len(h.seen) >= 256
		if !known {
			h.seen[v] = true
		}
		h.mu.Unlock()
		if !known {
			h.log.Warn("policy violation reported", "directive", v.directive, "blocked", v.blocked, "page", v.page)
		}
	}
}

func origin(text string) string {
	if slices.Contains([]string{"", "inline", "eval", "data", "blob"}, text) {
		return text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || len(u.Host) > 100 || strings.ContainsAny(u.Host, "\"' <>%") {
		return "other"
	}
	return u.Scheme + "://" + u.Host
}

func path(text string) string {
	u, err := url.Parse(text)
	if err != nil || len(u.Path) > 100 || strings.ContainsAny(u.Path, "\"' <>%\n") {
		return "other"
	}
	return u.Path
}

func site(log *slog.Logger, public fs.FS) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(public))
	mux.Handle("POST /checkout", http.RedirectHandler("/", http.StatusSeeOther))
	mux.Handle("POST /reports", &reports{log: log, limit: rate.NewLimiter(10, 100), seen: map[violation]bool{}})
	return secure.New(options()).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Reporting-Endpoints", `default="/reports"`)
		w.Header().Set("Origin-Agent-Cluster", "?1")
		mux.ServeHTTP(w, r)
	}))
}

func main() {
	server := http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: site(slog.Default(), os.DirFS("public")), ReadTimeout: 10 * time.Second}
	slog.Error("stopped", "error", server.ListenAndServe())
	os.Exit(1)
}
