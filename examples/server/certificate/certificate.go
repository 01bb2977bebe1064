// Package certificate serves a certificate that is replaced while the server
// runs, from files or from an authority, and redirects plain HTTP to https.
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
	// lookEvery is the shortest time between two reads of the files by
	// handshakes.
	lookEvery = time.Minute
	// ExpiresSoon is the remaining life below which a certificate causes a
	// warning, because it should have been renewed. ACME clients renew a month
	// before the end, or at two thirds of a shorter life.
	ExpiresSoon = 14 * 24 * time.Hour
)

// Reloader holds the certificate and the key that the server uses, and reads
// them again when their files change.
//
// ACME clients replace the files, but send a signal only if the operator
// configured one. A server that waits for a signal serves an expired
// certificate if none comes. So a handshake reads the files, at most once a
// minute; there is no goroutine and no watcher. The Reloader compares the
// content of the files, because not every copy or restored backup changes their
// times. SIGHUP reads the files at once.
type Reloader struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	looked  time.Time
	content [sha256.Size]byte // hash of the pair or the error that was read then
}

// New reads the pair, which must be valid. The error names the variables of the
// environment, and holds nothing from the files.
func New(certFile, keyFile string, log *slog.Logger) (*Reloader, error) {
	c := &Reloader{certFile: certFile, keyFile: keyFile, log: log}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(time.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// Load reads a pair. It returns the same errors as [New].
func Load(certFile, keyFile string) (tls.Certificate, error) {
	pair, _, err := read(certFile, keyFile)
	return pair, err
}

// read reads a pair. content is a hash of the files or, if one cannot be read,
// of the error, so that two reads can be compared. The error names the
// variables and holds nothing from the files.
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

// readPEM reads a regular file of at most 1 MiB. Its error names the variable
// and not the path, because the path may be the key itself, set by mistake.
// Other files are refused, because a pipe would wait for its writer, and a
// device would never end.
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

// look reads the files and uses the pair in them from now on. The caller holds
// mu. A pair that is not valid changes nothing, for example one of which only
// half is written yet. An expired pair is used, because the clock may be wrong.
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

// Reload reads the files now, and logs an error if they are not valid.
func (c *Reloader) Reload(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.look(now); err != nil {
		c.log.Error("certificate not reloaded", "error", err)
	}
}

// get is the GetCertificate of a tls.Config. One handshake a minute reads the
// files; the others do not wait for it.
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

// Expires returns when the certificate expires.
func (c *Reloader) Expires() time.Time { return c.current.Load().Leaf.NotAfter }

// Covers reports whether the certificate is issued for host, a name or an
// address.
func (c *Reloader) Covers(host string) bool {
	return c.current.Load().Leaf.VerifyHostname(host) == nil
}

// TLS returns the configuration of the public listener. It leaves cipher suites
// and curves to Go, because each release of Go updates them.
func (c *Reloader) TLS() *tls.Config { return listener(c.get) }

func listener(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: get,
		// HTTP/2 is for pages. If the server does not offer RFC 8441, browsers
		// open a separate connection with HTTP/1.1 for a WebSocket.
		NextProtos: []string{"h2", "http/1.1"},
	}
}
