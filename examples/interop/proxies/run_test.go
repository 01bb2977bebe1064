package proxies_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/internal/freeport"
)

// site is the site's name in the shipped configurations.
const site = "art.example"

// proxy is a running proxy.
type proxy struct {
	plain, secure string // the addresses on which it listens
	ca            *x509.CertPool
	reload        func(t *testing.T) // runs the operator's command
}

var proxies = []struct {
	name  string
	start func(t *testing.T, upstream string) proxy
}{
	{"nginx", startNginx},
	{"caddy", startCaddy},
}

func startNginx(t *testing.T, upstream string) proxy { return startNginxWith(t, upstream, ecdsaKey) }

// startNginxWith starts nginx with a certificate of a key that newKey makes,
// and with further changes of its configuration.
func startNginxWith(t *testing.T, upstream string, newKey func(*testing.T) crypto.Signer, changes ...[2]string) proxy {
	t.Helper()
	binary := program(t, "nginx", "/usr/sbin/nginx", "nginx-light")
	dir := t.TempDir()
	p, cert, key := listenAt(t, dir, newKey(t))

	shipped, err := os.ReadFile("../../deploy/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	// The values that the file's comment lists, and ports that need no
	// privilege.
	conf := string(shipped)
	for _, change := range append([][2]string{
		{"server unix:/run/relay-proxy/relay.sock;", "server " + upstream + ";"},
		{"/etc/ssl/relay/fullchain.pem;", cert + ";"},
		{"/etc/ssl/relay/privkey.pem;", key + ";"},
		{"listen 80;", "listen " + p.plain + ";"},
		{"listen 443 ssl http2;", "listen " + p.secure + " ssl http2;"},
		{"listen [::]:80;", ""},
		{"listen [::]:443 ssl http2;", ""},
	}, changes...) {
		if n := strings.Count(conf, change[0]); n != 1 {
			t.Fatalf("nginx.conf holds %q %d times, not once", change[0], n)
		}
		conf = strings.Replace(conf, change[0], change[1], 1)
	}
	write(t, dir, "relay.conf", conf)
	around := "daemon off; worker_processes 1; worker_shutdown_timeout 1s; pid nginx.pid; error_log stderr; events {}\nhttp { access_log off;\n"
	if os.Geteuid() == 0 {
		around = "user root;\n" + around // other users cannot enter the test's directory
	}
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		around += kind + "_temp_path " + kind + ";\n"
	}
	main := write(t, dir, "nginx.conf", around+"include relay.conf;\n}\n")

	args := []string{"-p", dir, "-e", "stderr", "-c", main}
	check(t, exec.Command(binary, append(args, "-t")...))
	run(t, exec.Command(binary, args...), p)
	p.reload = func(t *testing.T) { check(t, exec.Command(binary, append(args, "-s", "reload")...)) }
	return p
}

func startCaddy(t *testing.T, upstream string) proxy { return startCaddyWith(t, upstream, ecdsaKey) }

// startCaddyWith starts Caddy with a certificate of a key that newKey makes,
// and with more variables.
func startCaddyWith(t *testing.T, upstream string, newKey func(*testing.T) crypto.Signer, more ...string) proxy {
	t.Helper()
	binary := program(t, "caddy", "/usr/bin/caddy", "caddy")
	dir := t.TempDir()
	p, cert, key := listenAt(t, dir, newKey(t))
	port := func(addr string) string {
		_, port, _ := net.SplitHostPort(addr)
		return port
	}
	admin := freeport.Addr(t)
	command := func(verb string, args ...string) *exec.Cmd {
		cmd := exec.Command(binary, append([]string{verb, "--adapter", "caddyfile", "--config", "../../deploy/Caddyfile"}, args...)...)
		cmd.Env = append([]string{
			"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir,
			"RELAY_CADDY_ADMIN=" + admin, "RELAY_UPSTREAM=" + strings.Replace(upstream, "unix:", "unix/", 1),
			"RELAY_HTTP_PORT=" + port(p.plain), "RELAY_HTTPS_PORT=" + port(p.secure),
			"RELAY_SITE_OPTIONS=bind 127.0.0.1\ntls " + cert + " " + key,
		}, more...)
		return cmd
	}
	check(t, command("validate"))
	run(t, command("run"), p)
	// Without --force, Caddy does not reload an unchanged configuration.
	p.reload = func(t *testing.T) { check(t, command("reload", "--address", admin, "--force")) }
	return p
}

// program returns the path of a proxy. If it is not installed, the test is
// skipped.
func program(t *testing.T, name, usual, pkg string) string {
	t.Helper()
	for _, candidate := range []string{name, usual} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	testkit.Missing(t, "no "+name+": install it (on Debian: apt-get install "+pkg+")")
	return ""
}

func ecdsaKey(t *testing.T) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// listenAt returns a proxy with free addresses, and the files of a new
// certificate and its key.
func listenAt(t *testing.T, dir string, private crypto.Signer) (p proxy, cert, key string) {
	t.Helper()
	p = proxy{plain: freeport.Addr(t), secure: freeport.Addr(t), ca: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{site},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
		IsCA: true, BasicConstraintsValid: true,
		// With KeyEncipherment, an RSA key may be used for suites without
		// forward secrecy too.
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.ca.AppendCertsFromPEM(encoded)
	cert = write(t, dir, "cert.pem", string(encoded))
	key = write(t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return p, cert, key
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func check(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// run starts a proxy, and returns when it listens. The proxy ends with the
// test.
func run(t *testing.T, cmd *exec.Cmd, p proxy) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(relay.Patience):
			_ = cmd.Process.Kill()
			<-ended
			t.Error("the proxy did not end when asked to")
		}
		if t.Failed() {
			t.Logf("the proxy:\n%s", &log)
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(relay.Patience); ; {
		if answers(p.plain) && answers(p.secure) {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the proxy ended")
		case <-deadline:
			t.Fatal("the proxy does not listen")
		}
	}
}

func answers(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}
