// Package site is the assembled server: the parts of the relay, in the order in
// which a request meets them.
package site

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/examples/internal/thinlog"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/hold"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// sendBuffer bounds the bytes that the kernel holds for a viewer that does not
// read. The relay writes the history in pieces of that size and merges live
// messages meanwhile, so a larger buffer would only hold older data.
const sendBuffer = 64 << 10

// Options are the dependencies of a Site. Load and Log are required.
type Options struct {
	Load    func() (config.Config, error) // reads the configuration again
	Log     *slog.Logger
	Protect func(secrets ...string) // if set, called with new secrets before they are in force
}

// Site is a server that is ready to serve. It is safe for concurrent use. Its
// exported parts are for programs that embed it, and for tests; do not set
// them. With REDIS_URL, all but Handler, Operator and Trail are unset until the
// engine has answered, and /readyz says "starting" until then. History and
// Relay are those of the only conversation, and nil with ROOMS.
type Site struct {
	Authority *authority.Authority
	Blocks    *blocklist.List
	History   *history.Log
	Relay     *relay.Relay
	Rooms     *rooms.Rooms
	Trail     *trail.Trail
	Watch     *watch.Watch
	Metrics   *Metrics
	Brake     *hold.Brake
	Lives     *lives.Store // nil without LIVES_DIR

	// Handler serves the public listener, and Operator the operator's.
	Handler, Operator http.Handler

	cfg       config.Config
	opts      Options
	log       *slog.Logger
	thin      *slog.Logger                   // for lines that strangers can cause as often as they like
	flush     func()                         // writes what thin has left out
	idle      *idle                          // bounds HTTP connections
	clients   *clientip.Resolver             // reports nothing, unlike that of pooled
	pooled    *pooled                        // reports proxies whose clients count as one
	cert      certificates                   // nil if this server does not end TLS
	acme      *certificate.ACME              // is cert, or nil if cert comes from files
	blocks    atomic.Pointer[blocklist.List] // gets other servers' blocks; nil before there are connections
	elsewhere elsewhere
	secure    *headers.Middleware
	page      *web.Page
	engine    *engine.Engine // nil without REDIS_URL
	degraded  degraded
	listed    listed
	stopping  atomic.Bool
	reloading sync.Mutex
	recording sync.WaitGroup // of lives
	endLives  func()         // ends the recording
}

// certificates are the certificates of the public listener.
type certificates interface {
	TLS() *tls.Config
	Redirect(origins []string, port string) http.Handler
	Expires() time.Time
	Reload(now time.Time)
}

// New returns a Site with the configuration cfg. If the caller never calls
// [Site.Serve], it must call [Site.Close].
func New(cfg config.Config, opts Options) (*Site, error) {
	if opts.Protect == nil {
		opts.Protect = func(...string) {}
	}
	s := &Site{cfg: cfg, opts: opts, log: opts.Log, Trail: trail.New(), Rooms: rooms.New(cfg.Rooms), endLives: func() {}}
	s.thin, s.flush = thinlog.New(s.log)
	if err := s.openCertificate(); err != nil {
		return nil, err
	}
	if s.page = cfg.Page; s.page == nil {
		var err error
		if s.page, err = web.New(""); err != nil {
			return nil, err
		}
	}
	s.clients = cfg.Clients()
	s.idle = newIdle(s.clients.Trusts)
	s.pooled = newPooled(s.clients, s.log, s.thin)
	var err error
	if s.secure, err = Policy(cfg); err != nil {
		return nil, err
	}
	if err = s.openLives(); err == nil {
		s.engine, err = cfg.NewEngine(s.log)
	}
	if err != nil {
		_ = s.Close() // the first error is the cause
		return nil, err
	}
	if s.engine != nil {
		err = s.await()
	} else if err = s.openHistory(context.Background()); err == nil {
		err = s.assemble()
	}
	if err != nil {
		_ = s.Close() // the first error is the cause
		return nil, err
	}
	return s, nil
}

func (s *Site) openCertificate() (err error) {
	switch cfg := s.cfg; {
	case cfg.TLSCert != "":
		s.cert, err = certificate.New(cfg.TLSCert, cfg.TLSKey, s.log)
	case cfg.ACMEDomains != nil:
		s.acme, err = certificate.NewACME(certificate.ACMEConfig{
			Domains: cfg.ACMEDomains, Dir: cfg.ACMEDir, URL: cfg.ACMEDirectory(), Log: s.log,
		})
		s.cert = s.acme
		if !cfg.RedisURL.IsZero() {
			s.log.Warn("servers that share REDIS_URL must share TLS_ACME_DIR too, since the authority's question may reach any of them; or let the load balancer end TLS", "dir", cfg.ACMEDir)
		}
	}
	return err
}

// assemble creates the parts that use the history, and the handlers.
func (s *Site) assemble() (err error) {
	// A reload waits until there is something to reload.
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg := s.cfg
	var connections, tokens ratelimit.Shared
	if s.engine != nil {
		connections, tokens = s.engine.Limits()
	}
	s.Watch, err = watch.New(watch.Config{Log: s.log, Trail: s.Trail, Tokens: tokens, Publishing: s.publishing, Limits: ratelimit.Config{
		Limit: cfg.RateConnections, Window: cfg.RateWindow, MaxAttempts: cfg.MaxAttempts, Networks: cfg.RateNetworks,
		ClientIP: s.pooled.addr, Observe: s.pooled.decided, Penalty: ratelimit.Penalty{Failures: cfg.Failures},
		MaxTotal: cfg.MaxConnections, Process: upgrades(cfg), Shared: connections, OnShared: s.blockedElsewhere,
	}})
	if err != nil {
		return err
	}
	grants, err := SharedGrants(context.Background(), cfg, s.engine) // the engine has answered
	if err != nil {
		return err
	}
	grants.Log, grants.Audit, grants.Barred = s.log, s.Watch.Event, s.Watch.TokensBarred
	grants.ClientIP, grants.OnFailure = s.clients.Addr, s.Watch.Failed
	if s.Authority, err = authority.New(grants); err != nil {
		return err
	}
	upgrader, err := wsconn.New(wsconn.Config{Origins: s.origins(), Audit: s.Watch.Event, ClientIP: s.clients.Addr, SendBuffer: sendBuffer, PingInterval: cfg.PingEvery, PongTimeout: cfg.PongWait, WriteTimeout: cfg.WriteWait, Compress: s.compress})
	if err != nil {
		return err
	}
	patience := time.Duration(0)
	if s.engine != nil {
		patience = cfg.EnginePatience
	}
	brake := hold.Config{Now: s.Rooms.All()[0].Log.Now, Dir: cfg.AuthDir, Log: s.log}
	if s.engine != nil {
		brake.Shared = s.engine
	}
	if cfg.Delay > 0 {
		brake.Every = min(time.Second, cfg.Delay/4)
	}
	if s.Brake, err = hold.New(brake); err != nil {
		return err
	}
	if err := s.openRooms(relay.Config{
		Delay: cfg.Delay, Held: s.Brake.Held,
		Gate: s.Authority.Gate(), Upgrader: upgrader, ClientIP: s.clients.Addr, Logger: s.log, Thinned: s.thin,
		PublishRate: s.cfg.PublishRate, PublishBurst: s.cfg.PublishBurst, Patience: patience,
		ReturnRate: returns(cfg),
		Barred:     s.Watch.Barred, OnEnd: s.ended, OnFlood: s.Watch.Flooded,
	}); err != nil {
		return err
	}
	s.Blocks, err = blocklist.New(blocklist.Config{
		Limiter: s.Watch.Limiter(), Disconnect: s.Rooms.Disconnect, Proxies: s.cfg.Proxies,
		Penalties: s.Watch.Penalties, Forgive: s.Watch.Forgive,
		Dir: s.cfg.AuthDir, Shared: s.engine != nil, Log: s.log, Trail: s.Trail,
	})
	if err != nil {
		return err
	}
	s.blocks.Store(s.Blocks)
	reports, err := headers.NewReportHandler(headers.ReportConfig{Log: s.log})
	if err != nil {
		return err
	}
	s.Metrics = newMetrics(s)
	public, err := s.public(reports)
	if err != nil {
		return err
	}
	operator, err := operate.Handler(operate.Config{
		Authority: s.Authority, Blocks: s.Blocks, Trail: s.Trail, Watch: s.Watch,
		History: operate.History{Rooms: s.Rooms, Limits: Imports(s.cfg)},
		Hold:    s.Brake, Lives: s.Lives, Delay: cfg.Delay,
		Reports: reports.Stats, Reload: s.Reload, Metrics: s.Metrics.handler(),
	})
	if err != nil {
		return err
	}
	s.open(public, s.secure.Handler(Recovered(s.thin, operator)))
	return nil
}

// origins decides which pages may use the site.
func (s *Site) origins() wsauth.Origins {
	return wsauth.Origins{Allow: s.cfg.Origins, Scheme: s.clients.Scheme, InsecureSkipOriginCheck: !s.cfg.Production}
}

// public puts the handlers of the public listener together.
func (s *Site) public(reports http.Handler) (http.Handler, error) {
	pages, err := s.pages()
	if err == nil {
		err = s.handleLives(pages)
	}
	if err != nil {
		return nil, err
	}
	if s.Authority.Issuer() != nil {
		pages.Handle(authority.RefreshPath, s.Authority.RefreshHandler(s.Watch.RefuseTokens))
	}
	pages.Handle(relay.PostPath, s.Rooms.Handler(func(r *rooms.Room) http.Handler {
		return r.Relay().PostHandler(relay.PostConfig{Origins: s.origins(), Refuse: s.Watch.RefuseTokens, Audit: s.Watch.Event})
	}, relay.Refuse))
	pages.HandleFunc("GET /readyz", s.readyz)
	pages.Handle("POST "+reportPath, reports)
	mux := http.NewServeMux()
	mux.Handle("/ws", Recovered(s.thin, s.Rooms.Handler(func(r *rooms.Room) http.Handler {
		return s.told(r.Relay(), r.Relay().Screen(s.Watch.Limiter().Handler(r.Relay())))
	}, rooms.Plain)))
	mux.Handle(relay.EventsPath, Recovered(s.thin, s.Rooms.Handler(func(r *rooms.Room) http.Handler {
		return r.Relay().EventsHandler(relay.EventsConfig{
			Origins: s.origins(), Limit: s.Watch.Limiter().Handler, Audit: s.Watch.Event, Ping: s.cfg.PingEvery, WriteTimeout: s.cfg.WriteWait, SendBuffer: sendBuffer,
		})
	}, rooms.Plain)))
	mux.Handle("/", s.Metrics.answers(Recovered(s.thin, pages)))
	return s.secure.Handler(mux), nil
}

// pages returns the handlers that need neither the history nor an engine.
func (s *Site) pages() (*http.ServeMux, error) {
	secure, err := s.pagePolicy()
	if err != nil {
		return nil, err
	}
	pages := http.NewServeMux()
	pages.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	files := s.page.Handler(s.address)
	if s.Rooms.Named() {
		files = s.page.Rooms(s.address, s.listed.rooms(s.Rooms))
		s.roomPages(pages, secure)
	}
	pages.Handle("/{$}", secure.Handler(files))
	pages.Handle("/", files)
	return pages, nil
}

// host matches what a client that has no wrong intentions sends as Host.
var host = regexp.MustCompile(`^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)

// maxHost is the length of the longest name of a host, with a port.
const maxHost = 253 + len(":65535")

// address returns the address of the page: the first of ALLOWED_ORIGINS, or
// else what the client has requested.
func (s *Site) address(r *http.Request) string {
	switch {
	case len(s.cfg.Origins) > 0:
		return s.cfg.Origins[0] + "/"
	case len(r.Host) <= maxHost && host.MatchString(r.Host):
		return s.clients.Scheme(r) + "://" + r.Host + "/"
	}
	return ""
}

// Grants returns the part of an authority's configuration that cfg sets, for
// the server and for commands that make tokens without a server.
func Grants(cfg config.Config) authority.Config {
	return authority.Config{
		Keys: cfg.Keys(), PublicKeys: cfg.PublicKeys, Provider: cfg.Provider(), Audience: cfg.Audience, Claim: cfg.Claim, Devices: cfg.Devices,
		Rooms: cfg.Rooms, OnExpiry: cfg.OnExpiry, MaxLifetime: cfg.TokenMaxLifetime, MaxSessions: cfg.DeviceSessions, OverLimit: cfg.OverSessions,
		Dir: cfg.AuthDir, AccessLifetime: cfg.AccessLifetime, RefreshLifetime: cfg.RefreshLifetime,
	}
}

// SharedGrants is [Grants] with what the servers share in the engine e, for
// which it waits. If e is nil, they share nothing.
func SharedGrants(ctx context.Context, cfg config.Config, e *engine.Engine) (authority.Config, error) {
	grants := Grants(cfg)
	if e == nil {
		return grants, nil
	}
	auth, err := e.Authority(ctx)
	if err != nil {
		return grants, err
	}
	grants.Shared, grants.Families, grants.FamilyKey = auth, auth.Families(), e.RefreshKey()
	return grants, nil
}

// compress reports whether the client of r may get compressed frames. Safari
// fails with them in its versions 13.1 and 15.0 to 15.3, and in some cases in
// 17. Every browser with the engine of Safari, such as all of iOS, names
// AppleWebKit/605. Chromium names AppleWebKit/537.
func (s *Site) compress(r *http.Request) bool {
	return s.cfg.Compression && !strings.Contains(r.UserAgent(), "AppleWebKit/6")
}

// returns is how many clients come back in a second after a restart: fewer than
// UPGRADES_PER_SECOND admits, so that newcomers are admitted, too. 0 is the
// default of the relay.
func returns(cfg config.Config) rate.Limit {
	half := rate.Limit(cfg.UpgradesPerSecond) / 2
	if half >= 500 {
		return 0
	}
	return half
}

// upgrades returns the limit of UPGRADES_PER_SECOND. nil is no limit.
func upgrades(cfg config.Config) *rate.Limiter {
	if cfg.UpgradesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(cfg.UpgradesPerSecond), 2*cfg.UpgradesPerSecond)
}

// Imports returns the limits that cfg sets for an archive, for the server and
// for commands that read an archive without a server.
func Imports(cfg config.Config) operate.Limits {
	return operate.Limits{Keep: cfg.HistoryTrimAt, MaxBytes: cfg.HistoryMaxBytes}
}

// ended passes the duration of a connection to Watch, unless the connection
// ended because this server stops.
func (s *Site) ended(addr netip.Addr, lasted time.Duration) {
	if !s.stopping.Load() {
		s.Watch.Ended(addr, lasted)
	}
}

// Reload reads the certificate and the secrets again and puts them in force. An
// unusable certificate or environment changes nothing. Every outcome is logged;
// an unusable certificate is only logged, and not returned.
func (s *Site) Reload() error {
	if s.cert != nil {
		s.cert.Reload(time.Now())
	}
	// Reloads run one after the other. Otherwise the reload that read older
	// files could be the last to put its secrets in force.
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg, err := s.opts.Load()
	if err == nil && s.Authority == nil {
		err = errors.New("the engine has not answered yet: reload again when /readyz says ready")
	}
	if err == nil {
		s.opts.Protect(cfg.Secrets()...)
		err = s.Authority.Rotate(cfg.Keys(), cfg.PublicKeys)
	}
	if err != nil {
		s.log.Error("secrets not reloaded", "error", err)
		return err
	}
	s.log.Info("secrets reloaded", "keys", len(cfg.Keys())+len(cfg.PublicKeys))
	return nil
}

// Close closes the history and the engine, and writes the log lines that are
// still left out. [Site.Serve] calls it too.
func (s *Site) Close() (err error) {
	s.flush()
	err = errors.Join(s.closeLives(), s.Rooms.Close())
	if s.engine != nil {
		s.engine.Close()
	}
	return err
}

// ListenRedirect serves the redirect to https at HTTP_REDIRECT_ADDR until stop
// is called. If that is not set, it serves nothing. public is the address of
// the public listener, to whose port it redirects. The answers have the site's
// headers without HSTS, which RFC 6797 section 7.2 forbids over plain HTTP.
func (s *Site) ListenRedirect(public net.Addr) (stop func(), err error) {
	if s.cfg.RedirectAddr == "" {
		return func() {}, nil
	}
	secure, err := Policy(s.cfg)
	if err == nil {
		secure, err = secure.With(func(p *headers.Policy) { p.HSTS = headers.HSTS{} })
	}
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(public.String())
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", s.cfg.RedirectAddr)
	if err != nil {
		return nil, fmt.Errorf("%w (set HTTP_REDIRECT_ADDR to another address, or empty to listen on none)", err)
	}
	s.log.Info("redirect listening", "addr", ln.Addr().String())
	return s.background(ln, secure.Handler(s.cert.Redirect(s.cfg.Origins, port))), nil
}
