package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/doctor"
	"github.com/relayguard/relayguard/examples/server/site"
)

// deployment is a relay behind a front that ends TLS for art.example. Each
// field breaks one thing; the zero value breaks nothing.
type deployment struct {
	relay     func(*config.Config)            // the relay's own configuration
	answer    func(*http.Response)            // changes an answer in the front
	request   func(*httputil.ProxyRequest)    // changes a request in the front
	handle    func(http.Handler) http.Handler // answers requests in the front
	socket    http.Handler                    // replaces the relay's WebSocket, behind its limiter
	tls       func(*tls.Config)               // changes the front's TLS
	cert      func(*x509.Certificate)         // changes the certificate
	plain     func(site string) http.Handler  // port 80; nil: the redirect
	ports     []string                        // open besides 80 and 443
	noHTTP2   bool
	unknownCA bool
	closed80  bool
}

// awayConn makes loopback look like the internet, which has no trusted proxy.
type awayConn struct{ net.Conn }

func (awayConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443} }

// examine runs the deployment and returns the doctor's report on
// https://art.example/.
func (d deployment) examine(t *testing.T, change func(*doctor.Config)) doctor.Report {
	t.Helper()
	s := start(t, func(c *config.Config) {
		production(c)
		if d.relay != nil {
			d.relay(c)
		}
	})
	for i := range 20 {
		if _, err := s.srv.History.Append(t.Context(), fmt.Appendf(nil, `{"text":"%d","timestamp":%d}`, i, time.Now().UnixMilli())); err != nil {
			t.Fatal(err)
		}
	}
	if s.cfg.HistoryKeep > 1000 {
		for range s.cfg.HistoryKeep {
			if _, err := s.srv.History.Append(t.Context(), fmt.Appendf(nil, `{"text":"a","timestamp":%d}`, time.Now().UnixMilli())); err != nil {
				t.Fatal(err)
			}
		}
	}
	upstream := "http://" + s.addr
	if d.socket != nil {
		mux := http.NewServeMux()
		secure, err := site.Policy(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle("/ws", secure.Handler(s.srv.Watch.Limiter().Handler(d.socket)))
		mux.Handle("/", s.srv.Handler)
		upstream = "http://" + serveAt(t, mux)
	}
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			// The relay trusts loopback, so the client gets a public address.
			r.Out.Header.Set("X-Forwarded-For", "192.0.2.9")
			r.Out.Header.Set("X-Real-IP", "192.0.2.9")
			if d.request != nil {
				d.request(r)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if d.answer != nil {
				d.answer(r)
			}
			return nil
		},
	}
	var handler http.Handler = proxy
	if d.handle != nil {
		handler = d.handle(handler)
	}

	ca := newCA(t)
	certPEM, keyPEM := ca.issue(1, d.cert)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(handler)
	front.EnableHTTP2 = !d.noHTTP2
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if d.tls != nil {
		d.tls(front.TLS)
	}
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail on purpose
	front.StartTLS()
	t.Cleanup(front.Close)

	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://art.example"+r.URL.RequestURI(), http.StatusPermanentRedirect)
	})
	at := map[string]string{"443": front.Listener.Addr().String()}
	if d.plain != nil {
		at["80"] = serveAt(t, d.plain("http://"+s.addr))
	} else if !d.closed80 {
		at["80"] = serveAt(t, plain)
	}
	for _, port := range d.ports {
		at[port] = s.addr
	}
	cfg := doctor.Config{
		URL:   "https://art.example/",
		Token: s.token(testDevice, time.Hour),
		Roots: ca.pool,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			if at[port] == "" {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			conn, err := new(net.Dialer).DialContext(ctx, network, at[port])
			if err != nil {
				return nil, err
			}
			return awayConn{conn}, nil
		},
	}
	if d.unknownCA {
		cfg.Roots = newCA(t).pool
	}
	if change != nil {
		change(&cfg)
	}
	report, err := doctor.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// with returns the IDs of the items with an outcome.
func with(r doctor.Report, outcome doctor.Outcome) (ids []string) {
	for _, item := range r.Items {
		if item.Outcome == outcome {
			ids = append(ids, item.ID)
		}
	}
	return ids
}

// one returns the item with an ID.
func one(r doctor.Report, id string) doctor.Item {
	i := slices.IndexFunc(r.Items, func(item doctor.Item) bool { return item.ID == id })
	return r.Items[i]
}

func guideDoctor(t *testing.T) {
	t.Run("good", func(t *testing.T) {
		r := deployment{}.examine(t, nil)
		for _, outcome := range []doctor.Outcome{doctor.Fail, doctor.Warn, doctor.Skipped} {
			for _, id := range with(r, outcome) {
				t.Errorf("%s: %s: %s", outcome, id, one(r, id).Seen)
			}
		}
		if got, want := with(r, doctor.Manual), []string{"secret", "device-id", "firewall", "monitoring.alerts"}; !slices.Equal(got, want) {
			t.Errorf("not visible from outside: %q, want %q", got, want)
		}
		if g := one(r, "headers.grade").Seen; !strings.HasPrefix(g, "A+") {
			t.Errorf("grade: %s", g)
		}
	})
	t.Run("good, in a museum's page", func(t *testing.T) {
		r := deployment{relay: func(c *config.Config) { c.EmbedOrigins = []string{"https://museum.example"} }}.examine(t, nil)
		for _, id := range append(with(r, doctor.Fail), with(r, doctor.Warn)...) {
			t.Errorf("%s: %s", id, one(r, id).Seen)
		}
	})
	for name, row := range broken() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := row.examine(t, nil)
			bad := append(with(r, doctor.Fail), with(r, doctor.Warn)...)
			if !slices.Equal(bad, []string{row.line}) {
				for _, id := range bad {
					t.Errorf("%s: %s", id, one(r, id).Seen)
				}
				t.Fatalf("found by %q, want %s alone", bad, row.line)
			}
			item := one(r, row.line)
			if !strings.Contains(item.Seen, row.seen) || item.Mend == "" {
				t.Errorf("%s has %q and %q, want %q in the first", row.line, item.Seen, item.Mend, row.seen)
			}
			if (item.Outcome == doctor.Warn) != row.warn {
				t.Errorf("%s: outcome %s", row.line, item.Outcome)
			}
		})
	}
}

// The verb checks real processes: exit codes, the report for people and the
// report for programs.
func TestDoctorVerb(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	files := ca.files(1)
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
	if err := os.WriteFile(roots, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	server := launch(t, true, dir, []string{
		"JWT_SECRET=" + testSecret, "ALLOWED_DEVICE_ID=" + testDevice, "PORT=" + freePort(t), "NODE_ENV=production",
		"TLS_CERT_FILE=" + files.cert, "TLS_KEY_FILE=" + files.key,
	})
	viewer := ca.peer(server.addr)
	device := ca.peer(server.addr)
	device.authenticate(testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour))))
	device.send(`{"text":"before"}`)
	viewer.texts(1)
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := write("good", testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(time.Hour)))+"\n")
	stale := write("stale", testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(-time.Hour))))

	run := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		p := launch(t, false, dir, []string{"SSL_CERT_FILE=" + roots}, append([]string{"doctor"}, args...)...)
		if code := p.wait(); code != want {
			t.Errorf("doctor %q: exit code %d, want %d\n%s%s", args, code, want, p.stdout, p.stderr)
		}
		return p.stdout.String(), p.stderr.String()
	}
	site := "https://" + server.addr
	text, _ := run(0, "-token-file", good, site)
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Contains(text, "\x1b") || !strings.Contains(text, "ok       auth.token         the token is accepted\n") || strings.Contains(text, "eyJ") {
		t.Errorf("the report for people:\n%s", text)
	}
	out, _ := run(0, "-json", "-skip-rate-limit", "-token-file", stale, site)
	var report doctor.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Items) != strings.Count(out, `"checklist": "p`) {
		t.Errorf("the report for programs: %v\n%s", err, out)
	}
	if item := one(report, "auth.token"); item.Outcome != doctor.OK || item.Seen != "the expired token is refused" {
		t.Errorf("an expired token: %+v", item)
	}
	if item := one(report, "rate-limit"); item.Outcome != doctor.Skipped {
		t.Errorf("asked to be left out: %+v", item)
	}

	plain := start(t, nil)
	run(1, "http://"+plain.addr)
	if _, stderr := run(3, "http://127.0.0.1:"+freePort(t)); !strings.Contains(stderr, "not reachable: connect: connection refused") {
		t.Errorf("where nobody listens: %s", stderr)
	}
	run(3, "https://"+plain.addr)
	for _, args := range [][]string{
		{}, {"art.example"}, {"ftp://art.example"}, {"https://a:b@art.example"}, {"https://art.example?x"}, {site, site},
		{"-timeout", "0s", site}, {"-origin", "evil.example", site}, {"-token-file", dir, site}, {"-token-file", write("empty", ""), site}, {"-no-such-flag"},
	} {
		if _, stderr := run(2, args...); stderr == "" {
			t.Errorf("doctor %q: no message", args)
		}
	}

	// Nothing was published: the next message is the viewer's next.
	device.send(`{"text":"after"}`)
	if texts, _ := viewer.texts(1); texts[0] != "after" {
		t.Errorf("the doctor published %q", texts)
	}
}

// A token is a secret, and a certificate proves only the connection that it was
// shown on. This front shows a valid certificate to pages and handshakes, and
// another one to WebSockets, whose messages it reads.
func TestDoctorShowsNoTokenToAManInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		why string
		ttl time.Duration
	}{
		{"a valid token", time.Hour},
		{"an expired one names the device, and its signature can be tried against keys", -time.Hour},
	} {
		t.Run(row.why, func(t *testing.T) {
			stranger := must(tls.X509KeyPair(newCA(t).issue(9, nil)))
			var token string
			var stolen atomic.Bool
			d := deployment{
				tls: func(c *tls.Config) {
					evil := c.Clone()
					evil.Certificates = []tls.Certificate{stranger}
					c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
						if slices.Equal(hello.SupportedProtos, []string{"http/1.1"}) {
							return evil, nil
						}
						return nil, nil
					}
				},
				socket: imitation{heard: func(message []byte) {
					if bytes.Contains(message, []byte(token)) {
						stolen.Store(true)
					}
				}},
			}
			r := d.examine(t, func(c *doctor.Config) {
				token = testkit.Forge(testSecret, hs256, claims(testDevice, time.Now().Add(row.ttl)))
				c.Token = token
			})
			if stolen.Load() {
				t.Error("the token was sent over a connection whose certificate is not valid")
			}
			if item := one(r, "auth.token"); item.Outcome != doctor.Fail || !strings.Contains(item.Seen, "certificate") {
				t.Errorf("%s: %s", item.Outcome, item.Seen)
			}
		})
	}
}
