package redistest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"

	"github.com/relayguard/relayguard/internal/freeport"
	"github.com/relayguard/relayguard/internal/selfsigned"
)

// TLS is how clients reach an engine that speaks TLS.
type TLS struct {
	Addr     string      // HOST:PORT, for rediss://
	CertFile string      // the engine's own certificate, PEM
	Config   *tls.Config // trusts that certificate
}

// StartTLS starts the engine with a second listener, which speaks TLS with a
// certificate made for the test. Clients need no certificate.
func (e Engine) StartTLS(t testing.TB, options ...string) (*Server, TLS) {
	t.Helper()
	certFile, keyFile, err := selfsigned.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeport.Addr(t)
	_, port, _ := net.SplitHostPort(addr)
	s := e.Start(t, append([]string{
		"--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no",
	}, options...)...)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return s, TLS{addr, certFile, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
}
