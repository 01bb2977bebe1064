package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// The directories of Let's Encrypt. Certificates of the second are for tests:
// no browser trusts them, and its limits are far higher.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// After a failure the certificate is asked for again after firstRetry, and
// after twice as long each further time, up to lastRetry. Let's Encrypt allows
// five failures an hour for a name.
const (
	firstRetry = 2 * time.Minute
	lastRetry  = time.Hour
)

// ACMEConfig configures an [ACME]. All but Client are required.
type ACMEConfig struct {
	Domains []string // DNS names in lower case; each gets its own certificate
	Dir     string   // keeps the account's key and the certificates
	URL     string   // of the authority's directory
	Log     *slog.Logger
	Client  *http.Client // makes the requests; if nil, http.DefaultClient
}

// ACME gets the server's certificates from an authority by itself (RFC 8555),
// and renews them when a third of their life is left, 30 days at most. It
// answers the authority's questions by TLS (RFC 8737) and, if [ACME.Redirect]
// is served, by plain HTTP.
type ACME struct {
	cfg     ACMEConfig
	manager *autocert.Manager

	mu     sync.Mutex
	leaves map[string]*x509.Certificate // the newest of each domain; none before the first
}

// NewACME returns an ACME with the certificates in its directory. It gets no
// new ones; see [ACME.Run].
func NewACME(cfg ACMEConfig) (*ACME, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("TLS_ACME_DIR: %w", err)
	}
	if err := CheckDir(cfg.Dir); err != nil {
		return nil, err
	}
	a := &ACME{cfg: cfg, leaves: make(map[string]*x509.Certificate)}
	a.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(cfg.Dir),
		Client: &acme.Client{DirectoryURL: cfg.URL, HTTPClient: cfg.Client, UserAgent: "relayguard"},
		HostPolicy: func(_ context.Context, host string) error {
			if name, _, err := net.SplitHostPort(host); err == nil {
				host = name
			}
			if !a.Covers(host) {
				return errForeign
			}
			return nil
		},
	}
	for _, domain := range cfg.Domains {
		if leaf, err := Cached(cfg.Dir, domain); err == nil && time.Now().Before(leaf.NotAfter) {
			_, _ = a.obtain(domain) // if it cannot be used, Run gets another
		}
	}
	return a, nil
}

var (
	errForeign = errors.New("certificate: TLS_ACME_DOMAINS does not have this name")
	errNotYet  = errors.New("certificate: the authority has not issued it yet")
)

// CheckDir checks that this user can write to the directory of an ACME, and
// that no other user can enter it: it holds the keys of the certificates.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("TLS_ACME_DIR: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("TLS_ACME_DIR %s holds private keys, and other users can enter it (mode %04o): chmod 0700, or name a directory of its own", dir, info.Mode().Perm())
	}
	// autocert does not report that it cannot write: each start would take a
	// new certificate, until the authority gives no more.
	probe, err := os.CreateTemp(dir, ".probe")
	if err != nil {
		return fmt.Errorf("TLS_ACME_DIR cannot be written, so each start would need a new certificate: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Run gets the certificates that are not there yet, one after the other, until
// it has them all or ctx ends. Visitors cannot make the server ask for one.
func (a *ACME) Run(ctx context.Context) {
	for _, domain := range a.cfg.Domains {
		for delay := firstRetry; !a.has(domain); delay = min(2*delay, lastRetry) {
			// Package autocert bounds this to five minutes, and a server that
			// stops does not wait for it.
			got := make(chan error, 1)
			go func() {
				_, err := a.obtain(domain)
				got <- err
			}()
			var err error
			select {
			case err = <-got:
			case <-ctx.Done():
				return
			}
			if err == nil {
				break
			}
			a.cfg.Log.Error("no certificate yet: the authority must reach this server at port 443 or 80 of the domain", "domain", domain, "error", err, "again_in", delay)
			timer := time.NewTimer(delay)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	}
}

func (a *ACME) has(domain string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leaves[domain] != nil
}

// get is the GetCertificate of a tls.Config.
func (a *ACME) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		return a.manager.GetCertificate(hello) // the authority's question
	}
	domain := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if domain == "" { // of a client that knows only the address
		domain = a.cfg.Domains[0]
	}
	switch {
	case !a.Covers(domain):
		return nil, errForeign
	case !a.has(domain):
		return nil, errNotYet
	}
	return a.obtain(domain)
}

// obtain returns the certificate of a domain. The first time, it asks the
// authority, unless the directory has one.
func (a *ACME) obtain(domain string) (*tls.Certificate, error) {
	// Every client with TLS 1.2 gets the same kind of key. Otherwise, a
	// stranger could make the server ask for a second certificate.
	cert, err := a.manager.GetCertificate(&tls.ClientHelloInfo{ServerName: domain, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.leaves[domain]; cert.Leaf != nil && (old == nil || !old.Equal(cert.Leaf)) {
		a.leaves[domain] = cert.Leaf
		a.cfg.Log.Info("certificate loaded", "renewed", old != nil, "names", cert.Leaf.DNSNames, "expires", cert.Leaf.NotAfter)
	}
	return cert, nil
}

// Reload does nothing: there are no files that another program renews.
func (a *ACME) Reload(time.Time) {}

// Expires returns when the first certificate expires, which is the zero time
// if a domain has none yet.
func (a *ACME) Expires() (first time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, domain := range a.cfg.Domains {
		leaf := a.leaves[domain]
		if leaf == nil {
			return time.Time{}
		}
		if first.IsZero() || leaf.NotAfter.Before(first) {
			first = leaf.NotAfter
		}
	}
	return first
}

// Covers reports whether host is one of the domains.
func (a *ACME) Covers(host string) bool {
	return slices.Contains(a.cfg.Domains, strings.ToLower(host))
}

// TLS returns the configuration of the public listener; see [Reloader.TLS].
func (a *ACME) TLS() *tls.Config {
	cfg := listener(a.get)
	cfg.NextProtos = append(cfg.NextProtos, acme.ALPNProto)
	return cfg
}

// Redirect is [Reloader.Redirect], and answers the authority's questions over
// plain HTTP (RFC 8555, section 8.3).
func (a *ACME) Redirect(origins []string, port string) http.Handler {
	return a.manager.HTTPHandler(redirect(a.Covers, origins, port))
}

// Cached returns the certificate of a domain that an ACME keeps in dir.
func Cached(dir, domain string) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, domain), filepath.Join(dir, domain))
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}
