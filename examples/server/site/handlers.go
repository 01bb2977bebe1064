package site

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/ratelimit"
)

// reportPath takes browsers' reports of violations of the page's policy.
const reportPath = "/csp-reports"

// Policy returns the middleware that sets the security headers of every answer
// of this server.
func Policy(cfg config.Config) (*headers.Middleware, error) {
	p := headers.Strict()
	// The page is shown full screen, on a wall or by a projector, and the
	// screen must stay on.
	p.Permissions = p.Permissions.With("fullscreen", headers.Self).With("screen-wake-lock", headers.Self)
	// On Linux, Chromium has neither of these and warns about their names on
	// the console, which the page keeps silent. The CSP allows no script that
	// could use them.
	p.Permissions = p.Permissions.Without("bluetooth", "web-share")
	p.ReportingEndpoints = []headers.Endpoint{{Name: "csp", URL: reportPath}}
	p.CSP = p.CSP.With("report-to", "csp").With("report-uri", reportPath) // the second for Firefox and Safari
	if cfg.Production {
		// A proxy that ends TLS reaches this server over plain HTTP, so plain
		// answers need HSTS too.
		p.HSTS.Always = !cfg.EndsTLS()
	} else {
		p.HSTS = headers.HSTS{}
	}
	return headers.New(p)
}

// told answers a request without an upgrade with the refusal that an upgrade of
// the same client would get, and counts nothing. If there is none, it calls
// next. The page needs it: a browser hides from scripts with which status an
// upgrade failed, so the page asks again without one.
func (s *Site) told(r *relay.Relay, next http.Handler) http.Handler {
	limiter := s.Watch.Limiter()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet || req.Header.Get("Upgrade") != "" {
			next.ServeHTTP(w, req)
			return
		}
		if r.Stopping() {
			r.ServeHTTP(w, req)
			return
		}
		if d := limiter.Check(ratelimit.Key{Addr: s.clients.Addr(req)}); !d.Allowed {
			limiter.Refuse(w, req, d)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// Recovered answers a panic of next with a plain 500. net/http's own recovery
// would cut the connection without an answer and log the panic's value, which
// may quote what a stranger sent.
func Recovered(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			what := fmt.Sprintf("%T", v)
			if err, ok := v.(runtime.Error); ok {
				what = err.Error()
			}
			log.Error("panic", "value", what, "stack", string(debug.Stack()))
			http.Error(w, "Internal server error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *Site) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		plain(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	if s.degraded.any() {
		// The status is 200, since the relay serves from memory. A load
		// balancer that took the relay out of rotation would turn a disk
		// failure into an outage.
		plain(w, http.StatusOK, "degraded")
		return
	}
	if s.engine != nil && s.engine.Away() {
		// Viewers are served from memory, and publishers wait.
		plain(w, http.StatusOK, "degraded: engine")
		return
	}
	plain(w, http.StatusOK, "ready")
}

// plain answers with one line of text.
func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
