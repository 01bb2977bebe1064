package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/socket"
)

// healthWait is shorter than the timeout that a container's health check should
// have.
const healthWait = 3 * time.Second

// setupHealth asks the server at HOST and PORT whether it takes connections. It
// is a health check for images that hold only this program, and it reads no
// secret.
func setupHealth(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		var cfg config.Config
		if err := cfg.Spec().Only("HOST", "PORT", "TLS_CERT_FILE", "TLS_ACME_DOMAINS").Load(c.env); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.ctx, healthWait)
		defer cancel()
		answer, err := ready(ctx, &cfg)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout, answer)
		return err
	}
}

// ready returns the server's text of /readyz, such as "ready" or "degraded". A
// status other than 200 is an error.
func ready(ctx context.Context, cfg *config.Config) (string, error) {
	network, at, err := reached(cfg.Addr())
	if err != nil {
		return "", err
	}
	scheme := "http://"
	name := ""
	if cfg.EndsTLS() {
		scheme = "https://"
	}
	if len(cfg.ACMEDomains) > 0 {
		name = cfg.ACMEDomains[0] // the server has no certificate for localhost
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"localhost/readyz", nil)
	if err != nil {
		return "", err
	}
	res, err := (&http.Transport{ // no proxy, no redirects
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, at)
		},
		DisableKeepAlives: true,
		// The certificate names the site, while this request goes to the
		// machine's own address. The request holds no secret.
		TLSClientConfig: &tls.Config{ServerName: name, InsecureSkipVerify: true},
	}).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64))
	if err != nil {
		return "", err
	}
	answer := terminal.Line(strings.TrimSpace(string(text)))
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the server answers %s: %q", res.Status, answer)
	}
	return answer, nil
}

// reached returns where a process of this machine reaches a server that listens
// at addr. If the server listens on all addresses, that is the loopback
// address, which always exists.
func reached(addr string) (network, at string, err error) {
	if path, ok := socket.Path(addr); ok {
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", err
	}
	switch ip, _ := netip.ParseAddr(host); ip {
	case netip.IPv4Unspecified():
		host = "127.0.0.1"
	case netip.IPv6Unspecified():
		host = "::1"
	}
	return "tcp", net.JoinHostPort(host, port), nil
}
