package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// command runs a verb in an environment that has no secret.
func command(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	all := map[string]string{"JWT_SECRET": "-"}
	for k, v := range env {
		all[k] = v
	}
	code = run(t.Context(), args, environment(all), &out, &errs)
	return code, out.String(), errs.String()
}

// withoutSecret starts a server whose environment has env and no secret.
func withoutSecret(t *testing.T, env map[string]string, change func(*config.Config)) *testSite {
	t.Helper()
	all := map[string]string{"JWT_SECRET": "-"}
	for k, v := range env {
		all[k] = v
	}
	cfg, err := config.Load(environment(all))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, func(c *config.Config) {
		*c = cfg
		if change != nil {
			change(c)
		}
	})
}

// A server with public keys alone accepts the tokens of another machine, and
// holds nothing that signs.
func TestPublicKey(t *testing.T) {
	for _, alg := range []string{"EdDSA", "ES256"} {
		dir := t.TempDir()
		key, foreign := filepath.Join(dir, "key"), filepath.Join(dir, "foreign")
		code, public, stderr := command(t, nil, "token", "-new-key", key, "-alg", alg)
		if code != exitOK || !strings.Contains(public, "BEGIN PUBLIC KEY") || strings.Contains(public, "PRIVATE") {
			t.Fatal(code, public, stderr)
		}
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
		if code, _, stderr := command(t, nil, "token", "-new-key", key); code == exitOK || !strings.Contains(stderr, "exists") {
			t.Error("a private key is overwritten:", code, stderr)
		}
		if code, _, stderr := command(t, nil, "token", "-new-key", foreign, "-alg", "ES256"); code != exitOK {
			t.Fatal(stderr)
		}
		env := map[string]string{"JWT_PUBLIC_KEY": public}
		code, token, stderr := command(t, env, "token", "-key", key, "-ttl", "1h")
		if code != exitOK {
			t.Fatal(stderr)
		}
		code, _, stderr = command(t, env, "token", "-key", foreign)
		if code == exitOK || !strings.Contains(stderr, "JWT_PUBLIC_KEY") {
			t.Error("a key that the server does not know:", code, stderr)
		}
		code, _, stderr = command(t, env, "token")
		if code == exitOK || !strings.Contains(stderr, "-key FILE") {
			t.Error("nothing to sign with:", code, stderr)
		}

		s := withoutSecret(t, env, func(c *config.Config) { c.AuthDir = filepath.Join(dir, "auth") })
		p, _ := connect(t, s.addr)
		p.authenticate(strings.TrimSpace(token))
		p.send(`{"text":"signed elsewhere","timestamp":1}`)
		s.viewer().until("signed elsewhere")
		if res, _ := s.do("POST", "/auth/refresh"); res.StatusCode != http.StatusNotFound {
			t.Error("refresh tokens without a secret:", res.Status)
		}
		forged := testkit.Forge(public, `{"alg":"HS256"}`, fmt.Sprintf(`{"device":%q,"exp":%d}`, testDevice, time.Now().Add(time.Hour).Unix()))
		q, _ := connect(t, s.addr)
		q.send(`{"token":"` + forged + `"}`)
		if _, code := q.end(); code != 4401 {
			t.Error("the public key was taken for a secret:", code)
		}
		env["OPERATOR_ADDR"] = s.op
		if code, _, stderr := command(t, env, "sessions"); code == exitOK || !strings.Contains(stderr, "Unix socket") {
			t.Error("a command without a secret over TCP:", code, stderr)
		}
		if err := s.srv.Authority.Rotate(s.cfg.Keys(), publicKeysOf(t, foreign)); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the session of a withdrawn key has ended", func() bool { return len(s.srv.Authority.Gate().Sessions()) == 0 })
		if err := s.srv.Authority.Rotate([]jwtauth.Key{{Secret: []byte(testSecret)}}, nil); err == nil {
			t.Error("a secret is added by a reload")
		}
	}
}

func publicKeysOf(t *testing.T, file string) []jwtauth.Key {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.(*ecdsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	return []jwtauth.Key{{PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})}}
}

// The tokens of a provider are accepted with the provider's keys. As long as
// these cannot be had, a token is neither accepted nor refused.
func TestProvider(t *testing.T) {
	private, _, err := jwtauth.NewKeyPair(jwtauth.ES256)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(private)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	point, err := parsed.(*ecdsa.PrivateKey).PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	xy := point.Bytes()[1:]
	enc := base64.RawURLEncoding.EncodeToString
	var up atomic.Bool
	var provider *httptest.Server
	provider = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !up.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/keys":
			fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","x":%q,"y":%q}]}`, enc(xy[:32]), enc(xy[32:]))
		default:
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, provider.URL, provider.URL+"/keys")
		}
	}))
	defer provider.Close()
	for _, row := range []struct {
		name string
		up   bool
		set  string
		aud  string
		code int // 0: accepted
	}{
		{"discovery", true, "", "relay", 0},
		{"the address of the key set", true, provider.URL + "/keys", "relay", 0},
		{"another audience", true, "", "other", 4401},
		{"a provider that is down", false, "", "relay", 1013},
	} {
		t.Run(row.name, func(t *testing.T) {
			up.Store(row.up)
			s := withoutSecret(t, map[string]string{
				"JWT_ISSUER": provider.URL, "JWT_JWKS_URL": row.set, "JWT_AUDIENCE": "relay", "JWT_DEVICE_CLAIM": "sub",
			}, nil)
			signer, err := jwtauth.New(jwtauth.Config{
				Keys: []jwtauth.Key{{ID: "k1", PEM: private}}, Issuers: []string{provider.URL}, Audience: row.aud, AnySubject: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			token, err := signer.Sign(wsauth.ClaimSet{Subject: testDevice, ExpiresAt: time.Now().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			p, _ := connect(t, s.addr)
			if row.code == 0 {
				p.authenticate(token)
				return
			}
			p.send(`{"token":"` + token + `"}`)
			if _, code := p.end(); code != row.code {
				t.Errorf("closed with %d", code)
			}
			want := map[int]string{4401: "refused", 1013: "unavailable"}[row.code]
			testkit.Eventually(t, "the audit says "+want, func() bool {
				return slices.ContainsFunc(s.logs.Events("auth"), func(e map[string]any) bool { return e["outcome"] == want })
			})
		})
	}
}

// Each of these environments is refused at start, with what to do.
func TestKeyEnvironments(t *testing.T) {
	private, public, err := jwtauth.NewKeyPair(jwtauth.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		env  map[string]string
		want string
		why  string
	}{
		{map[string]string{"JWT_SECRET": "-"}, "JWT_SECRET is required, unless JWT_PUBLIC_KEY or JWT_ISSUER is set", "no key at all"},
		{map[string]string{"JWT_PUBLIC_KEY": string(private)}, "JWT_PUBLIC_KEY is a private key", "the wrong half of the pair"},
		{map[string]string{"JWT_PUBLIC_KEY": "ssh-ed25519 AAAA"}, "JWT_PUBLIC_KEY must be PEM", "another format"},
		{map[string]string{"JWT_PUBLIC_KEY": string(public) + string(public)}, "different public keys", "the same key twice"},
		{map[string]string{"JWT_PUBLIC_KEY": strings.ReplaceAll(string(public), "\n", " ")}, "with line breaks", "a shell has joined the lines"},
		{map[string]string{"JWT_JWKS_URL": "https://id.example/keys"}, "JWT_ISSUER is required", "keys of an unknown provider"},
		{map[string]string{"JWT_ISSUER": "http://id.example"}, "JWT_ISSUER must be an https URL", "anyone on the way could replace the keys"},
		{map[string]string{"JWT_ISSUER": "https://id.example", "JWT_JWKS_URL": "file:///etc/passwd"}, "JWT_JWKS_URL", "no URL of the web"},
		{map[string]string{"JWT_SECRET": "-", "JWT_PUBLIC_KEY": string(public), "JWT_SECRET_PREVIOUS": testSecret}, "JWT_SECRET is required", "an old secret alone"},
	} {
		_, err := config.Load(environment(row.env))
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "MC4C") {
			t.Errorf("%s: %v", row.why, err)
		}
	}
	if _, err := config.Load(environment(map[string]string{"JWT_SECRET": "-", "JWT_PUBLIC_KEY": string(public)})); err != nil {
		t.Error(err)
	}
}
