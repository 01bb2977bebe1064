package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relayguard/relayguard/headers"
)

const (
	// certificateCheck is how often the files are looked at, at most.
	certificateCheck = time.Minute
	// expiresSoon is when a certificate that nobody has renewed is worth a warning.
	// ACME clients renew a month before the end, or at two thirds of a shorter life.
	expiresSoon = 14 * 24 * time.Hour
)

// certificate is the pair that the server shows, read again when its files change.
//
// ACME clients replace the files and signal nobody unless somebody told them to; a
// server that waits for the signal serves an expired certificate one night. So the
// files are looked at once a minute, by a handshake that comes then: no goroutine,
// no watcher. Their content is compared, because times do not change with every
// copy or restored backup. SIGHUP looks at once.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	looked  time.Time
	content [sha256.Size]byte // of what was found then, good or bad
}

// newCertificate reads the pair, which must be good.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(time.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// loadPair reads a pair, and sums up what it found for comparison, an error too. The
// error names the variables and holds nothing of the files.
func loadPair(certFile, keyFile string) (pair tls.Certificate, content [sha256.Size]byte, err error) {
	cert, errCert := readPEM("TLS_CERT_FILE", certFile)
	key, errKey := readPEM("TLS_KEY_FILE", keyFile)
	if err := errors.Join(errCert, errKey); err != nil {
		return pair, sha256.Sum256([]byte(err.Error())), err
	}
	content = sha256.Sum256(append(append(cert[:len(cert):len(cert)], 0), key...))
	if pair, err = tls.X509KeyPair(cert, key); err != nil {
		err = fmt.Errorf("TLS_CERT_FILE and TLS_KEY_FILE are not a pair that can be used: %w", err)
	}
	return pair, content, err
}

// readPEM reads a file of some KiB. Its error names the variable and not the path,
// which may be the key itself, put there by mistake. A pipe would wait for its
// writer, and a device never end.
func readPEM(name, path string) ([]byte, error) {
	const most = 1 << 20
	info, err := os.Stat(path)
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Size() > most:
		err = errors.New("a file of more than 1 MiB")
	default:
		var text []byte
		if text, err = os.ReadFile(path); err == nil {
			return text, nil
		}
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// look puts what stands in the files in force, under mu. A pair that is not good,
// such as one of which only half is written yet, changes nothing. One that has
// expired is used: the clock may be what is wrong.
func (c *certificate) look(now time.Time) error {
	c.looked = now
	pair, content, err := loadPair(c.certFile, c.keyFile)
	if content == c.content {
		return nil
	}
	c.content = content
	if err != nil {
		return err
	}
	renewed := c.current.Swap(&pair) != nil
	level := slog.LevelInfo
	if pair.Leaf.NotAfter.Sub(now) < expiresSoon {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "certificate loaded", "renewed", renewed, "names", pair.Leaf.DNSNames, "expires", pair.Leaf.NotAfter)
	return nil
}

// reload looks at the files now.
func (c *certificate) reload(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(now); err != nil {
		c.log.Error("certificate not reloaded", "error", err)
	}
}

// get is a tls.Config's GetCertificate. One handshake a minute looks; the others do
// not wait for it.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		if now := time.Now(); now.Sub(c.looked) >= certificateCheck {
			if err := c.look(now); err != nil {
				c.log.Error("certificate not reloaded", "error", err)
			}
		}
		c.mu.Unlock()
	}
	return c.current.Load(), nil
}

// covers reports whether the certificate speaks for host, a name or an address.
func (c *certificate) covers(host string) bool {
	return c.current.Load().Leaf.VerifyHostname(host) == nil
}

// tls is what connections to the public listener are held to. Cipher suites and
// curves are left to Go, whose choice is kept up to date with it.
func (c *certificate) tls() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.get,
		// HTTP/2 for pages. Browsers open a connection of their own, with HTTP/1.1, for
		// a WebSocket where the server does not offer RFC 8441.
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// redirection answers plain HTTP with the way to https. It sends nobody to a host
// for which the certificate does not speak, whatever the request's Host says. The
// port is that of the allowed origin with that host, because only it knows of a
// port that is forwarded; else the one that the server listens on.
func (c *certificate) redirection(origins []string, port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			// Whoever sends something in the clear should notice.
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
			return
		}
		asked := url.URL{Host: r.Host}
		host := asked.Hostname()
		if !c.covers(host) {
			http.Error(w, "Misdirected request", http.StatusMisdirectedRequest)
			return
		}
		// Made of parts, since a request's target may lack the slash that ends the host.
		to := url.URL{Scheme: "https", Host: hostAndPort(host, publicPort(origins, host, port)), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		if to.Path == "" {
			to.Path = "/"
		}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// publicPort is the port that browsers reach host at.
func publicPort(origins []string, host, port string) string {
	for _, o := range origins {
		if u, err := url.Parse(o); err == nil && u.Scheme == "https" && strings.EqualFold(u.Hostname(), host) {
			return u.Port()
		}
	}
	return port
}

// hostAndPort is host with port, unless that is what https means anyway.
func hostAndPort(host, port string) string {
	if port != "" && port != "443" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
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
	srv := s.http(secure.Handler(s.cert.redirection(cfg.origins, port)))
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

// checkTLS says which variables of TLS do not go together.
func (c *config) checkTLS() error {
	var errs []error
	if (c.tlsCert == "") != (c.tlsKey == "") {
		errs = append(errs, errors.New("TLS_CERT_FILE and TLS_KEY_FILE must be set together"))
	}
	if c.redirectAddr != "" && c.tlsCert == "" && c.tlsKey == "" {
		errs = append(errs, errors.New("HTTP_REDIRECT_ADDR leads to TLS, which needs TLS_CERT_FILE and TLS_KEY_FILE"))
	}
	return errors.Join(errs...)
}

// reportTLS prints whether the pair can be used and for how long.
func (c *config) reportTLS(w io.Writer, now time.Time) error {
	if c.tlsCert == "" {
		return nil
	}
	pair, _, err := loadPair(c.tlsCert, c.tlsKey)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	left := leaf.NotAfter.Sub(now)
	state := ""
	switch {
	case left <= 0:
		return fmt.Errorf("the certificate for %s has expired on %s", names(leaf.DNSNames), leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate for %s is not valid before %s", names(leaf.DNSNames), leaf.NotBefore.Format(time.DateOnly))
	case left < expiresSoon:
		state = "\nWARNING: renew it, or find out why it was not renewed"
	}
	fmt.Fprintf(w, "\nThe certificate for %s expires on %s, in %d days.%s\n", names(leaf.DNSNames), leaf.NotAfter.Format(time.DateOnly), int(left.Hours()/24), state)
	return nil
}

func names(of []string) string {
	if len(of) == 0 {
		return "no name"
	}
	return strings.Join(of, ", ")
}
