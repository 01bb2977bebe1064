package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch/suspect"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// Bounds on what a peer may do before it has said anything useful, and on the
// stop. Together the two last stay below the five seconds that a supervisor
// should have to wait.
const (
	headerWait = 5 * time.Second
	bodyWait   = 10 * time.Second
	answerWait = 30 * time.Second
	idleWait   = 2 * time.Minute
	maxHeader  = 16 << 10 // bytes

	// sendBuffer is what the kernel may hold for a viewer that does not read. The
	// history waits for it in one piece of that size at a time, and what is live is
	// merged meanwhile, so more would only be older.
	sendBuffer = 64 << 10 // bytes

	// reportPath is where browsers tell what the policy kept the page from doing.
	reportPath = "/csp-reports"

	// maxSuspects is how many clients are watched for suspicious patterns, in some
	// two megabytes.
	maxSuspects = 5000

	viewersGrace  = 3 * time.Second
	requestsGrace = time.Second
)

// server is the whole relay: the packages in the order in which a request meets
// them.
type server struct {
	log      *slog.Logger
	auth     *authority
	history  *history.Log
	limiter  *ratelimit.Limiter
	relay    *relay.Relay
	trims    atomic.Pointer[relay.Relay] // told of what the history drops
	reports  *headers.ReportHandler
	cert     *certificate.Reloader // nil: a proxy ends TLS, or nobody
	handler  http.Handler
	operator http.Handler
	metrics  *metrics
	trail    *trail.Trail
	suspects *suspect.Detector
	blocks   *blocks
	durable  bool        // the history is on disk
	degraded atomic.Bool // that disk fails
	stopping atomic.Bool
}

// newServer makes a server as cfg says; env is where it reads the secrets again.
func newServer(cfg config, env lookup, log *slog.Logger) (*server, error) {
	s := &server{
		log: log, metrics: newMetrics(), trail: trail.New(), suspects: suspect.New(maxSuspects), durable: cfg.historyDir != "",
	}
	if cfg.tlsCert != "" {
		var err error
		if s.cert, err = certificate.New(cfg.tlsCert, cfg.tlsKey, log); err != nil {
			return nil, err
		}
	}
	clients := clientip.Behind(cfg.proxies...)

	var err error
	audit := s.audit(wsauth.AuditLog(log))
	if s.auth, err = newAuthority(cfg, log, audit, clients.Addr, s.failed); err != nil {
		return nil, err
	}
	upgrader, err := wsconn.New(wsconn.Config{Origins: wsconn.Origins{
		Allow:                   cfg.origins,
		Scheme:                  clients.Scheme,
		InsecureSkipOriginCheck: !cfg.production,
	}, Audit: audit, ClientIP: clients.Addr, SendBuffer: sendBuffer, PingInterval: cfg.pingEvery, PongTimeout: cfg.pongWait, WriteTimeout: cfg.writeWait})
	if err != nil {
		return nil, err
	}
	if err = s.openHistory(cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.history.Close() // the error is the first one
		}
	}()
	s.relay, err = relay.New(relay.Config{
		Log: s.history, Gate: s.auth.gate, Upgrader: upgrader, ClientIP: clients.Addr, Logger: log,
		PublishRate: cfg.publishRate, PublishBurst: cfg.publishBurst,
		Barred: s.barred, OnEnd: s.ended,
	})
	if err != nil {
		return nil, err
	}
	s.trims.Store(s.relay)
	s.limiter, err = ratelimit.New(ratelimit.Config{
		Limit: cfg.rateConnections, Window: cfg.rateWindow, MaxAttempts: cfg.maxAttempts,
		ClientIP: clients.Addr, OnReject: s.rejected, Observe: s.metrics.decided,
		Penalty: ratelimit.Penalty{Failures: cfg.failures},
	})
	if err != nil {
		return nil, err
	}
	s.blocks = &blocks{limiter: s.limiter, proxies: cfg.proxies, disconnect: s.relay.Disconnect, log: log, trail: s.trail}
	if err = s.blocks.load(cfg.authDir); err != nil {
		return nil, err
	}

	secure, err := cfg.secure()
	if err != nil {
		return nil, err
	}
	page, err := secure.With(web.Policy)
	if err != nil {
		return nil, err
	}
	s.reports, err = headers.NewReportHandler(headers.ReportConfig{Log: log})
	if err != nil {
		return nil, err
	}

	s.metrics.watch(s)

	pages := http.NewServeMux()
	if s.auth.issuer != nil {
		pages.Handle(refreshPath, s.auth.refresh(s.limiter, clients.Addr))
	}
	pages.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { word(w, http.StatusOK, "ok") })
	pages.HandleFunc("GET /readyz", s.readyz)
	pages.Handle("POST "+reportPath, s.reports)
	pages.Handle("/{$}", page.Handler(web.Handler()))
	pages.Handle("/", web.Handler())
	mux := http.NewServeMux()
	mux.Handle("/ws", recovered(log, s.limiter.Handler(s.relay)))
	mux.Handle("/", s.metrics.answers(recovered(log, pages)))
	s.handler = secure.Handler(mux)
	operator, err := operate.Handler(operate.Config{
		Verifier: s.auth, Reports: s.reports.Stats,
		Gate: s.auth.gate, Issuer: s.auth.issuer, Revoke: s.auth.revoke,
		Keys: s.auth.keys.KeyUsage, Reload: func() error { return s.reload(env) },
		History: operate.History{Log: s.history, Relay: s.relay, Keep: cfg.historyTrimAt, MaxBytes: cfg.historyMaxBytes},
		Blocks:  s.blocks, Trail: s.trail,
		Metrics: s.metrics.handler(),
	})
	if err != nil {
		return nil, err
	}
	s.operator = secure.Handler(recovered(log, operator))
	return s, nil
}

// secure is the policy around everything that this server answers.
func (c *config) secure() (*headers.Middleware, error) {
	policy := headers.Strict()
	// The page fills a wall or a projector, which must not fall asleep meanwhile.
	policy.Permissions = policy.Permissions.With("fullscreen", headers.Self).With("screen-wake-lock", headers.Self)
	policy.ReportingEndpoints = []headers.Endpoint{{Name: "csp", URL: reportPath}}
	policy.CSP = policy.CSP.With("report-to", "csp").With("report-uri", reportPath) // the second for Firefox and Safari
	if c.production {
		// A proxy that ends TLS reaches this server over plain HTTP.
		policy.HSTS.Always = c.tlsCert == ""
	} else {
		policy.HSTS = headers.HSTS{}
	}
	return headers.New(policy)
}

// recovered answers a panic with a plain 500. net/http's own recovery would cut
// the connection without an answer and log the panic's value, which may quote
// what a stranger sent.
func recovered(log *slog.Logger, next http.Handler) http.Handler {
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

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		word(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	if s.degraded.Load() {
		// Still 200: the relay serves from memory, and taking it out of rotation would
		// make an outage of a disk failure.
		word(w, http.StatusOK, "degraded")
		return
	}
	word(w, http.StatusOK, "ready")
}

func word(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

func (s *server) rejected(r *http.Request, d ratelimit.Decision, suppressed uint64) {
	s.log.Warn("connection refused", "client", d.Client, "reason", string(d.Reason),
		"retry_after", d.RetryAfter.Round(time.Millisecond), "suppressed", suppressed)
	s.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindRefused, Outcome: string(d.Reason), Addr: d.Client.String(), Count: suppressed + 1})
}

// audit writes each event to the log, and holds refusals against the address, so
// that whoever goes on guessing is blocked before it is upgraded.
func (s *server) audit(log func(wsauth.Event)) func(wsauth.Event) {
	return func(e wsauth.Event) {
		log(e)
		s.metrics.event(e)
		s.trail.Add(trail.FromEvent(e))
		switch e.Kind {
		case wsauth.EventRefused:
			s.failed(e.Peer.Addr)
		case wsauth.EventOriginRefused:
			s.suspicious(s.suspects.Foreign(e.Peer.Addr, e.Detail, time.Now()))
		}
	}
}

// failed counts a refused token, of either kind.
func (s *server) failed(addr netip.Addr) {
	s.suspicious(s.suspects.Failed(addr, time.Now()))
	if until, blocked := s.limiter.Fail(addr); blocked {
		s.metrics.blocked.Inc()
		s.log.Warn("address blocked", "addr", addr, "until", until)
		s.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindBlock, Outcome: "penalty", Addr: addr.String(), Until: &until})
	}
}

// reload reads the certificate and the secrets again and puts them in force. What
// cannot be used changes nothing.
func (s *server) reload(env lookup) error {
	if s.cert != nil {
		s.cert.Reload(time.Now())
	}
	return s.auth.reload(env)
}

// barred is for connections that were admitted before their address was blocked.
func (s *server) barred(addr netip.Addr) bool {
	_, blocked := s.limiter.Blocked(addr)
	return blocked
}

// ended looks at a connection's length, unless it was this server that ended it.
func (s *server) ended(addr netip.Addr, lasted time.Duration) {
	if !s.stopping.Load() && !s.barred(addr) {
		s.suspicious(s.suspects.Ended(addr, lasted, time.Now()))
	}
}

// suspicious tells of e, if it is so. The record's format is stable, so that other
// programs can read it: msg=suspicious, then outcome (failures, churn or origins),
// addr, count and within. Later versions may only append.
func (s *server) suspicious(e suspect.Event, is bool) {
	if !is {
		return
	}
	s.metrics.suspicious.WithLabelValues(string(e.Kind)).Inc()
	s.log.Warn("suspicious", "outcome", string(e.Kind), "addr", e.Addr, "count", e.Count, "within", e.Within.Round(time.Millisecond))
	s.trail.Add(trail.Entry{Time: time.Now(), Kind: trail.KindSuspicious, Outcome: string(e.Kind), Addr: e.Addr.String(), Count: uint64(e.Count)})
}

// serve answers on ln, and on operator unless it is nil, until ctx ends. Then it
// stops in order: not ready, 1001 to all viewers, and last the listeners, so that
// readiness can be seen failing.
func (s *server) serve(ctx context.Context, ln, operator net.Listener) error {
	public, private := s.http(s.handler), s.http(s.operator)
	served := make(chan error, 2)
	go func() {
		if s.cert != nil {
			public.TLSConfig = s.cert.TLS()
			served <- public.ServeTLS(ln, "", "")
		} else {
			served <- public.Serve(ln)
		}
	}()
	if operator != nil {
		go func() { served <- private.Serve(operator) }()
	} else {
		served <- http.ErrServerClosed
	}
	var failed error
	for ended := 0; ended < 2; {
		select {
		case <-ctx.Done():
			s.drain(public, private)
			for ; ended < 2; ended++ {
				<-served // http.ErrServerClosed: asked for
			}
		case err := <-served:
			if ended++; !errors.Is(err, http.ErrServerClosed) {
				failed = errors.Join(failed, err)
				s.drain(public, private)
			}
		}
	}
	return errors.Join(failed, s.history.Close())
}

func (s *server) http(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       bodyWait,
		WriteTimeout:      answerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeader,
		// net/http would answer "OPTIONS *" by itself, without our headers.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

func (s *server) drain(servers ...*http.Server) {
	s.stopping.Store(true)
	s.log.Info("stopping", "connections", s.relay.Len())
	s.trail.Close()
	viewers, cancel := context.WithTimeout(context.Background(), viewersGrace)
	defer cancel()
	if err := s.relay.Shutdown(viewers); err != nil {
		s.log.Warn("connections cut", "error", err)
	}
	requests, cancel := context.WithTimeout(context.Background(), requestsGrace)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(requests); err != nil {
			_ = srv.Close()
		}
	}
}

// listenRedirect serves the redirect, where one is wanted, until stop is called.
// site is where it leads to. Its headers are the site's, without HSTS, which RFC
// 6797 section 7.2 forbids over plain HTTP.
func (s *server) listenRedirect(cfg config, site net.Addr) (stop func(), err error) {
	if cfg.redirectAddr == "" {
		return func() {}, nil
	}
	secure, err := cfg.secure()
	if err == nil {
		secure, err = secure.With(func(p *headers.Policy) { p.HSTS = headers.HSTS{} })
	}
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(site.String())
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.redirectAddr)
	if err != nil {
		return nil, err
	}
	s.log.Info("redirect listening", "addr", ln.Addr().String())
	srv := s.http(secure.Handler(s.cert.Redirect(cfg.origins, port)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("redirect ended", "error", err)
		}
	}()
	return func() {
		_ = srv.Close() // an answer is one packet, and nothing is lost with it
		<-done
	}, nil
}
