// Package servicetest tests the services of examples/services, and their peers
// of examples/interop/services, with the same clients over real sockets.
package servicetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Audience is the audience of the tokens of a [Provider].
const Audience = "chat"

// Provider is an OpenID Connect provider with one ES256 key at a time.
type Provider struct {
	URL string

	mu   sync.Mutex
	key  *ecdsa.PrivateKey
	id   string
	down bool
}

// NewProvider starts a provider, and stops it when the test ends.
func NewProvider(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{}
	p.Rotate(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		point, err := p.key.PublicKey.Bytes() // 4, X and Y
		id := p.id
		p.mu.Unlock()
		if err != nil {
			t.Error(err)
			return
		}
		encode := base64.RawURLEncoding.EncodeToString
		p.answer(w, map[string]any{"keys": []any{map[string]string{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": encode(point[1:33]), "y": encode(point[33:]),
		}}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

func (p *Provider) answer(w http.ResponseWriter, v any) {
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	if down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Down makes the provider answer every request with an error, or end that.
func (p *Provider) Down(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
}

// Rotate replaces the key.
func (p *Provider) Rotate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.key, p.id = key, rand.Text()
	p.mu.Unlock()
}

// Token returns a token for a subject and a scope. It is valid for an hour. The
// claims are added, or replace those of the same name; nil removes one.
func (p *Provider) Token(t testing.TB, subject, scope string, claims map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	all := map[string]any{"iss": p.URL, "aud": Audience, "sub": subject, "scope": scope, "iat": now, "exp": now + 3600}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	p.mu.Lock()
	key, id := p.key, p.id
	p.mu.Unlock()
	signed := part(t, map[string]string{"alg": "ES256", "typ": "at+jwt", "kid": id}) + "." + part(t, all)
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func part(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// tamper changes the signature of a token.
func tamper(token string) string {
	i := strings.LastIndexByte(token, '.') + 10
	changed := byte('A')
	if token[i] == changed {
		changed = 'B'
	}
	return token[:i] + string(changed) + token[i+1:]
}
