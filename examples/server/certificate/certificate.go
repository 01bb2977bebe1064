// Package certificate serves a certificate that is replaced while the server
// runs, and sends plain HTTP on to it.
package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often the files are looked at, at most.
	lookEvery = time.Minute
	// ExpiresSoon is when a certificate that nobody has renewed is worth a
	// warning. ACME clients renew a month before the end, or at two thirds of a
	// shorter life.
	ExpiresSoon = 14 * 24 * time.Hour
)

// Reloader is the pair that the server shows, read again when its files change.
//
// ACME clients replace the files and signal nobody unless somebody told them
// to; a server that waits for the signal serves an expired certificate one
// night. So the files are looked at once a minute, by a handshake that comes
// then: no goroutine, no watcher. Their content is compared, because times do
// not change with every copy or restored backup. SIGHUP looks at once.
type Reloader struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	looked  time.Time
	content [sha256.Size]byte // of what was found then, good or bad
}

// New reads the pair, which must be good. Its error names the variables of the
// environment, and holds nothing of the files.
func New(certFile, keyFile string, log *slog.Logger) (*Reloader, error) {
	c := &Reloader{certFile: certFile, keyFile: keyFile, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(time.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// Load reads a pair, as [New] does.
func Load(certFile, keyFile string) (tls.Certificate, error) {
	pair, _, err := read(certFile, keyFile)
	return pair, err
}

// read reads a pair, and sums up what it found for comparison, an error too.
// The error names the variables and holds nothing of the files.
func read(certFile, keyFile string) (pair tls.Certificate, content [sha256.Size]byte, err error) {
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

// readPEM reads a file of some KiB. Its error names the variable and not the
// path, which may be the key itself, put there by mistake. A pipe would wait
// for its writer, and a device never end.
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

// look puts what stands in the files in force, under mu. A pair that is not
// good, such as one of which only half is written yet, changes nothing. One
// that has expired is used: the clock may be what is wrong.
func (c *Reloader) look(now time.Time) error {
	c.looked = now
	pair, content, err := read(c.certFile, c.keyFile)
	if content == c.content {
		return nil
	}
	c.content = content
	if err != nil {
		return err
	}
	renewed := c.current.Swap(&pair) != nil
	level := slog.LevelInfo
	if pair.Leaf.NotAfter.Sub(now) < ExpiresSoon {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "certificate loaded", "renewed", renewed, "names", pair.Leaf.DNSNames, "expires", pair.Leaf.NotAfter)
	return nil
}

// Reload looks at the files now.
func (c *Reloader) Reload(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(now); err != nil {
		c.log.Error("certificate not reloaded", "error", err)
	}
}

// get is a tls.Config's GetCertificate. One handshake a minute looks; the
// others do not wait for it.
func (c *Reloader) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		if now := time.Now(); now.Sub(c.looked) >= lookEvery {
			if err := c.look(now); err != nil {
				c.log.Error("certificate not reloaded", "error", err)
			}
		}
		c.mu.Unlock()
	}
	return c.current.Load(), nil
}

// Covers reports whether the certificate speaks for host, a name or an address.
func (c *Reloader) Covers(host string) bool {
	return c.current.Load().Leaf.VerifyHostname(host) == nil
}

// TLS is what connections to the public listener are held to. Cipher suites and
// curves are left to Go, whose choice is kept up to date with it.
func (c *Reloader) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.get,
		// HTTP/2 for pages. Browsers open a connection of their own, with
		// HTTP/1.1, for a WebSocket where the server does not offer RFC 8441.
		NextProtos: []string{"h2", "http/1.1"},
	}
}
