package proxies_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"crypto"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/examples/server/doctor"
)

// keys are the kinds of certificates. A proxy chooses among other cipher suites
// for each.
var keys = []struct {
	name string
	make func(*testing.T) crypto.Signer
}{{"ECDSA", ecdsaKey}, {"RSA", rsaKey}}

// examine runs the doctor as a visitor from another machine would: it reaches
// the proxy's two ports and no other.
func examine(t *testing.T, p proxy, token string) doctor.Report {
	t.Helper()
	report, err := doctor.Run(t.Context(), doctor.Config{
		URL: "https://" + site, Roots: p.ca, Token: token, Timeout: relay.Patience,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to, ok := map[string]string{site + ":443": p.secure, site + ":80": p.plain}[addr]
			if !ok {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// publish puts a message into the history.
func publish(t *testing.T, server *relay.Server) {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), "ws://"+site+"/ws", &websocket.DialOptions{HTTPClient: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for _, step := range []struct{ text, answer string }{
		{`{"token":"` + server.Token() + `"}`, `"authenticated"`},
		{`{"text":"one"}`, `"one"`},
	} {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(step.text)); err != nil {
			t.Fatal(err)
		}
		hears(t, ws, step.answer)
	}
}

// item returns a line of the report.
func item(t *testing.T, report doctor.Report, id string) doctor.Item {
	t.Helper()
	for _, i := range report.Items {
		if i.ID == id {
			return i
		}
	}
	t.Fatalf("the report has no %s", id)
	return doctor.Item{}
}

// TestDoctor holds the shipped configurations against the doctor, with both
// kinds of certificates.
func TestDoctor(t *testing.T) {
	for _, key := range keys {
		for name, start := range map[string]func(*testing.T, string) proxy{
			"nginx": func(t *testing.T, upstream string) proxy { return startNginxWith(t, upstream, key.make) },
			"caddy": func(t *testing.T, upstream string) proxy { return startCaddyWith(t, upstream, key.make) },
		} {
			t.Run(name+" "+key.name, func(t *testing.T) {
				server := relay.New(t)
				server.Start()
				publish(t, server)
				report := examine(t, start(t, server.Addr), server.Token())
				for _, i := range report.Items {
					if i.Outcome == doctor.Fail || i.Outcome == doctor.Warn || i.Outcome == doctor.Skipped {
						t.Errorf("%s: %s: %s (%s)", i.ID, i.Outcome, i.Seen, i.Mend)
					}
				}
			})
		}
	}
}

// setting matches a setting of nginx in the doctor's advice.
var setting = regexp.MustCompile(`\b(ssl_[a-z_]+|server_tokens) [A-Za-z0-9:+._ -]+?( in nginx|;|$)`)

// TestAdvice breaks a setting of nginx.conf at a time. The doctor notices each,
// and its advice for nginx cures it.
func TestAdvice(t *testing.T) {
	server := relay.New(t)
	server.Start()
	const comment = "    # The suites of TLS 1.2 with forward secrecy, for both kinds of certificates. nginx's own default admits others.\n"
	const ciphers = "    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" +
		"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;\n"
	for _, row := range []struct {
		why, id    string
		old, wrong string
	}{
		{"nginx's own suites", "tls.ciphers", ciphers, ""},
		{"all suites", "tls.ciphers", ciphers, "    ssl_ciphers ALL:@SECLEVEL=0;\n"},
		{"old versions", "tls.version", "    ssl_protocols TLSv1.2 TLSv1.3;\n" + comment + ciphers,
			"    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;\n    ssl_ciphers ALL:@SECLEVEL=0;\n"},
	} {
		for _, key := range keys {
			t.Run(row.why+" "+key.name, func(t *testing.T) {
				sick := item(t, examine(t, startNginxWith(t, server.Addr, key.make, [2]string{row.old, row.wrong}), ""), row.id)
				if sick.Outcome != doctor.Fail {
					t.Fatalf("the doctor does not notice it: %+v", sick)
				}
				found := setting.FindString(sick.Mend)
				if found == "" {
					t.Fatalf("no setting of nginx in %q", sick.Mend)
				}
				advised := "    " + strings.TrimSuffix(strings.TrimSuffix(found, " in nginx"), ";") + ";\n"
				if cured := item(t, examine(t, startNginxWith(t, server.Addr, key.make, [2]string{row.old, advised}), ""), row.id); cured.Outcome != doctor.OK {
					t.Errorf("with %q: %+v", advised, cured)
				}
			})
		}
	}
}

// TestWaits starts the relay after the proxy. Until then, the proxy's answer
// makes a browser ask again, and it neither hides the failure from monitors nor
// stays in a cache. The relay's own errors are passed on.
func TestWaits(t *testing.T) {
	var server *relay.Server
	upstream := func(t *testing.T, host string) string {
		server = relay.New(t, "HOST="+host)
		return server.Addr
	}
	each(t, upstream, func(t *testing.T, p proxy) {
		ask := func(path string) *http.Response {
			t.Helper()
			res, err := p.client("127.0.0.2").Do(request(t, http.MethodGet, "https://"+site+path, nil))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res
		}
		for _, path := range []string{"/", "/?a=b", "/readyz", "/ws", "/foreign"} {
			res := ask(path)
			if res.StatusCode != http.StatusBadGateway {
				t.Errorf("%s: %s", path, res.Status)
			}
			for name, want := range map[string]string{
				"Refresh": "5", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
				"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			} {
				if got := strings.Join(res.Header[http.CanonicalHeaderKey(name)], " and "); got != want {
					t.Errorf("%s: %s: %q, want %q", path, name, got, want)
				}
			}
		}
		server.Start()
		for path, want := range map[string]int{"/": http.StatusOK, "/readyz": http.StatusOK, "/foreign": http.StatusNotFound} {
			if res := ask(path); res.StatusCode != want || res.Header.Get("Refresh") != "" {
				t.Errorf("with the relay, %s: %s, Refresh %q", path, res.Status, res.Header.Get("Refresh"))
			}
		}
	})
}

// TestCaddyfileIsFormatted holds the file to `caddy fmt`, since Caddy warns
// about other forms at each start.
func TestCaddyfileIsFormatted(t *testing.T) {
	const file = "../../deploy/Caddyfile"
	want, err := exec.Command(program(t, "caddy", "/usr/bin/caddy", "caddy"), "fmt", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
		t.Errorf("run `caddy fmt --overwrite %s` (%v)", file, err)
	}
}
