package jwtauth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var (
	asymmetric = []string{jwtauth.RS256, jwtauth.PS256, jwtauth.ES256, jwtauth.ES384, jwtauth.EdDSA}
	hashed     = map[string]int{jwtauth.HS256: 32, jwtauth.HS384: 48, jwtauth.HS512: 64}
)

// pair is a key pair in all notations.
type pair struct {
	alg             string
	private, public []byte // PEM
	jwk             map[string]any
	secrets         map[string]any // the private members of the JWK
}

func (p pair) with(changes map[string]any) map[string]any {
	key := maps.Clone(p.jwk)
	for name, value := range changes {
		key[name] = value
		if value == nil {
			delete(key, name)
		}
	}
	return key
}

func text(members any) []byte {
	out, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return out
}

func set(keys ...map[string]any) []byte { return text(map[string]any{"keys": keys}) }

var b64 = base64.RawURLEncoding.EncodeToString

// rsaKeys are made once, since that takes long.
var rsaKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys
})

// newPair returns a pair whose JWK has the ID kid. n chooses an RSA key.
func newPair(t testing.TB, alg, kid string, n int) pair {
	t.Helper()
	p := pair{alg: alg, jwk: map[string]any{"kid": kid, "alg": alg, "use": "sig"}, secrets: map[string]any{}}
	var signer crypto.Signer
	var err error
	switch alg {
	case jwtauth.RS256, jwtauth.PS256:
		k := rsaKeys()[n]
		signer = k
		p.jwk["kty"], p.jwk["n"], p.jwk["e"] = "RSA", b64(k.N.Bytes()), "AQAB"
		p.secrets["d"], p.secrets["p"], p.secrets["q"] = b64(k.D.Bytes()), b64(k.Primes[0].Bytes()), b64(k.Primes[1].Bytes())
	case jwtauth.ES256, jwtauth.ES384:
		curve := elliptic.P256()
		if alg == jwtauth.ES384 {
			curve = elliptic.P384()
		}
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer = k
		point, _ := k.PublicKey.Bytes()
		d, _ := k.Bytes()
		size := len(point) / 2
		p.jwk["kty"], p.jwk["crv"], p.jwk["x"], p.jwk["y"] = "EC", curve.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
		p.secrets["d"] = b64(d)
	case jwtauth.EdDSA:
		var public ed25519.PublicKey
		var k ed25519.PrivateKey
		public, k, err = ed25519.GenerateKey(rand.Reader)
		signer = k
		p.jwk["kty"], p.jwk["crv"], p.jwk["x"] = "OKP", "Ed25519", b64(public)
		p.secrets["d"] = b64(k.Seed())
	}
	if err != nil {
		t.Fatal(err)
	}
	p.private, p.public = pemOf(t, signer)
	return p
}

func pemOf(t testing.TB, signer crypto.Signer) (private, public []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der), block("PUBLIC KEY", pub)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func number(n int64) string { return b64(big.NewInt(n).Bytes()) }

// anyone returns a verifier for tokens of any subject.
func anyone(t testing.TB, keys ...jwtauth.Key) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: keys, AnySubject: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
