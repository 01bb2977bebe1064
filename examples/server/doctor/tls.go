package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// expiresSoon is the remaining time below which a certificate gets a warning.
// Automatic renewal happens long before.
const expiresSoon = 14 * 24 * time.Hour

func (p *probe) checkTLS(page answer) {
	if !p.secure() {
		p.note("tls.certificate", Fail, "the address is plain http: anyone on the network path can read and change everything, tokens included")
		for _, id := range []string{"tls.redirect", "tls.version", "tls.ciphers", "tls.http2"} {
			p.note(id, Skipped, "the address is plain http")
		}
		return
	}
	p.checkCertificate()
	p.checkVersions()
	if page.proto == 2 {
		p.note("tls.http2", OK, "pages are sent over HTTP/2")
	} else {
		p.note("tls.http2", Warn, "pages are sent over HTTP/1.1")
	}
	p.checkRedirect()
}

func (p *probe) checkCertificate() {
	state, err := p.handshake(p.insecureTLS())
	if err != nil {
		p.note("tls.certificate", Fail, "the handshake failed: %s", plainError(err))
		return
	}
	leaf, pool := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		pool.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: p.host(), Roots: p.Roots, Intermediates: pool})
	left := time.Until(leaf.NotAfter)
	var unknown x509.UnknownAuthorityError
	switch {
	case left <= 0:
		p.note("tls.certificate", Fail, "expired on %s", leaf.NotAfter.Format(time.DateOnly))
	case errors.As(err, &unknown):
		p.note("tls.certificate", Fail, "issued by %s, which is not trusted; %d certificates were sent, so the chain may be incomplete", quote(leaf.Issuer.String()), len(state.PeerCertificates))
	case err != nil:
		p.note("tls.certificate", Fail, "%s", err)
	case left < expiresSoon:
		p.trusted = true
		p.note("tls.certificate", Warn, "expires in %d days, on %s", int(left.Hours()/24), leaf.NotAfter.Format(time.DateOnly))
	default:
		p.trusted = true
		p.note("tls.certificate", OK, "valid for %s, and for %d more days", p.host(), int(left.Hours()/24))
	}
}

// handshake opens a new connection, returns the state after the handshake and
// closes the connection.
func (p *probe) handshake(cfg *tls.Config) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.Timeout)
	defer cancel()
	conn, err := p.dial(ctx, "tcp", net.JoinHostPort(p.host(), p.port()))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	return secure.ConnectionState(), nil
}

// checkVersions offers only old versions, and then only weak cipher suites,
// which the server must refuse. Any error counts as a refusal, because other
// handshakes with this server succeed.
func (p *probe) checkVersions() {
	var problems []string
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		cfg := p.insecureTLS()
		cfg.MinVersion, cfg.MaxVersion = v, v
		if _, err := p.handshake(cfg); err == nil {
			problems = append(problems, tls.VersionName(v)+" is accepted")
		}
	}
	p.judge("tls.version", problems, "TLS 1.0 and 1.1 are refused")

	cfg := p.insecureTLS()
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, s := range tls.InsecureCipherSuites() {
		cfg.CipherSuites = append(cfg.CipherSuites, s.ID)
	}
	if state, err := p.handshake(cfg); err == nil {
		p.note("tls.ciphers", Fail, "%s is accepted", tls.CipherSuiteName(state.CipherSuite))
	} else {
		p.note("tls.ciphers", OK, "suites without forward secrecy, RC4 and 3DES are refused")
	}
}

// checkRedirect sends requests to port 80, one of them with another host's name
// in Host. A redirect to that host would send visitors to a foreign site.
func (p *probe) checkRedirect() {
	ask := func(host string) (answer, *url.URL) {
		plain := &url.URL{Scheme: "http", Host: p.host(), Path: p.url.Path}
		if strings.Contains(p.host(), ":") {
			plain.Host = "[" + p.host() + "]"
		}
		a := p.roundTrip(&http.Request{Method: http.MethodGet, URL: plain, Host: host, Header: http.Header{}, Close: true})
		if a.err != nil {
			return a, nil
		}
		to, err := plain.Parse(a.header.Get("Location"))
		if err != nil || a.header.Get("Location") == "" {
			return a, nil
		}
		return a, to
	}
	a, to := ask(p.url.Hostname())
	switch {
	case a.err != nil && p.port() != "443":
		p.note("tls.redirect", Skipped, "nothing answers on port 80, and the site is on port %s", p.port())
		return
	case a.err != nil:
		p.note("tls.redirect", Warn, "nothing answers on port 80, which a browser may try if a visitor types only the name")
		return
	case a.status/100 != 3 || to == nil:
		p.note("tls.redirect", Fail, "port 80 answers %d instead of a redirect to https", a.status)
		return
	case to.Scheme != "https" || !strings.EqualFold(to.Hostname(), p.host()):
		p.note("tls.redirect", Fail, "port 80 redirects to %s", quote(to.String()))
		return
	}
	const stranger = "evil.example"
	if _, there := ask(stranger); there != nil && strings.EqualFold(there.Hostname(), stranger) {
		p.note("tls.redirect", Fail, "port 80 redirects to any host that the request's Host names")
		return
	}
	p.note("tls.redirect", OK, "port 80 answers %d to %s", a.status, quote(to.String()))
}

// checkPorts tries the ports that only a proxy and the operator should reach.
func (p *probe) checkPorts() {
	for _, at := range []struct{ id, port string }{{"ports.app", "3000"}, {"ports.operator", "3001"}} {
		if at.port == p.port() {
			p.note(at.id, Skipped, "it is the port of the address")
			continue
		}
		ctx, cancel := context.WithTimeout(p.ctx, min(p.Timeout, 3*time.Second))
		conn, err := p.dial(ctx, "tcp", net.JoinHostPort(p.host(), at.port))
		cancel()
		if err != nil {
			p.note(at.id, OK, "port %s cannot be reached from here", at.port)
			continue
		}
		conn.Close()
		if p.near.Load() {
			p.note(at.id, Skipped, "port %s is open, but this is the machine itself or its network: run from elsewhere", at.port)
		} else {
			p.note(at.id, Warn, "port %s accepts connections", at.port)
		}
	}
}
