package jwtauth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var claims = wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: now.Add(time.Hour), Scope: []string{"read", "publish"}}

// A token of each algorithm, signed with a key in any notation, verifies with
// the key in any notation, and with no key of another algorithm or pair.
func TestEveryAlgorithm(t *testing.T) {
	type signed struct {
		alg, token string
		keys       []jwtauth.Key // of which each verifies
	}
	var all []signed
	sign := func(alg string, signers []jwtauth.Key, verifiers ...jwtauth.Key) {
		for _, k := range signers {
			token, err := anyone(t, k).SignAt(claims, now)
			if err != nil {
				t.Fatal(alg, err)
			}
			all = append(all, signed{alg, token, append(verifiers, k)})
		}
	}
	for alg, size := range hashed {
		for _, b := range []string{"a", "b"} {
			secret := bytes.Repeat([]byte(b), size)
			jwk := text(map[string]any{"kty": "oct", "alg": alg, "k": b64(secret)})
			sign(alg, []jwtauth.Key{{Secret: secret, Algorithm: alg}, {JWK: jwk}})
		}
	}
	for _, alg := range asymmetric {
		for n := range 2 {
			p := newPair(t, alg, "", n)
			delete(p.jwk, "kid")
			private := text(p.with(p.secrets))
			sign(alg, []jwtauth.Key{{PEM: p.private, Algorithm: alg}, {JWK: private}},
				jwtauth.Key{PEM: p.public, Algorithm: alg}, jwtauth.Key{JWK: text(p.jwk)})
		}
	}
	for i, s := range all {
		for j, other := range all {
			for _, k := range other.keys {
				_, err := anyone(t, k).Verify(t.Context(), []byte(s.token), now)
				want := wsauth.Reason("")
				switch {
				case s.alg != other.alg:
					want = wsauth.ReasonAlgorithm
				case i/2 != j/2: // two signers of each pair
					want = wsauth.ReasonSignature
				}
				if got := reasonOf(t, err); got != want {
					t.Errorf("%s token %d by %s key %d: %q, want %q", s.alg, i, other.alg, j, got, want)
				}
			}
		}
	}
}

// The algorithm in the header is that of the key, even if another key of the
// ring has it, and a signature of another length reaches no arithmetic.
func TestHeaderNamesTheAlgorithmOfTheKey(t *testing.T) {
	ed, ps := newPair(t, jwtauth.EdDSA, "", 0), newPair(t, jwtauth.PS256, "", 1)
	rs, es := newPair(t, jwtauth.RS256, "", 0), newPair(t, jwtauth.ES256, "", 0)
	v := anyone(t, jwtauth.Key{PEM: ed.public}, jwtauth.Key{PEM: es.public},
		jwtauth.Key{PEM: rs.public, Algorithm: jwtauth.RS256}, jwtauth.Key{PEM: ps.public, Algorithm: jwtauth.PS256})
	const claims = `{"sub":"a","exp":9999999999}`
	block, _ := pem.Decode(ed.private)
	edKey, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
	byEd := func(signed []byte) ([]byte, error) { return ed25519.Sign(edKey.(ed25519.PrivateKey), signed), nil }
	short := func([]byte) ([]byte, error) { return make([]byte, 255), nil }
	for _, row := range []struct {
		name, token string
		want        wsauth.Reason
	}{
		{"EdDSA", forge.By(`{"alg":"EdDSA"}`, claims, byEd), ""},
		{"EdDSA as ES256, of the same length", forge.By(`{"alg":"ES256"}`, claims, byEd), wsauth.ReasonSignature},
		{"EdDSA as RS256", forge.By(`{"alg":"RS256"}`, claims, byEd), wsauth.ReasonSignature},
		{"PS256", forge.PSS(`{"alg":"PS256"}`, claims, rsaKeys()[1], 32), ""},
		{"PS256 as RS256", forge.PSS(`{"alg":"RS256"}`, claims, rsaKeys()[1], 32), wsauth.ReasonSignature},
		{"PS256 by the key for RS256", forge.PSS(`{"alg":"PS256"}`, claims, rsaKeys()[0], 32), wsauth.ReasonSignature},
		{"EdDSA of 255 bytes", forge.By(`{"alg":"EdDSA"}`, claims, short), wsauth.ReasonMalformed},
	} {
		if _, err := v.Verify(t.Context(), []byte(row.token), now); reasonOf(t, err) != row.want {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	before := jwtauth.Verifications.Load()
	_, err := v.Verify(t.Context(), []byte(forge.By(`{"alg":"RS256"}`, claims, short)), now)
	if reasonOf(t, err) != wsauth.ReasonSignature || jwtauth.Verifications.Load() != before {
		t.Errorf("a signature of 255 bytes: %v after %d checks", err, jwtauth.Verifications.Load()-before)
	}
}

// A public key signs nothing.
func TestPublicKeysCannotSign(t *testing.T) {
	p := newPair(t, jwtauth.ES256, "k1", 0)
	for name, keys := range map[string][]jwtauth.Key{
		"PEM":                   {{PEM: p.public}},
		"JWK":                   {{JWK: text(p.jwk)}},
		"the second is private": {{PEM: p.public}, {Secret: secret}},
	} {
		if _, err := anyone(t, keys...).SignAt(claims, now); !errors.Is(err, jwtauth.ErrCannotSign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A change from the private to the public half of a key keeps its sessions.
func TestRotateToPublic(t *testing.T) {
	p := newPair(t, jwtauth.EdDSA, "", 0)
	v := anyone(t, jwtauth.Key{PEM: p.private})
	token, err := v.SignAt(claims, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(t.Context(), []byte(token), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Rotate(jwtauth.Key{PEM: p.public}); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.ValidAt(id, now); !ok {
		t.Error("the session has ended")
	}
	if _, err := v.SignAt(claims, now); !errors.Is(err, jwtauth.ErrCannotSign) {
		t.Error("the verifier still signs:", err)
	}
}

func TestNewKeyPair(t *testing.T) {
	for _, alg := range []string{jwtauth.EdDSA, jwtauth.ES256} {
		private, public, err := jwtauth.NewKeyPair(alg)
		if err != nil {
			t.Fatal(err)
		}
		token, err := anyone(t, jwtauth.Key{PEM: private}).SignAt(claims, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := anyone(t, jwtauth.Key{PEM: public, Algorithm: alg}).Verify(t.Context(), []byte(token), now); err != nil {
			t.Error(alg, err)
		}
	}
	if _, _, err := jwtauth.NewKeyPair(jwtauth.HS256); !errors.Is(err, wsauth.ConfigUnknown) {
		t.Error("a pair for HMAC:", err)
	}
}

func TestRefusedKeys(t *testing.T) {
	es := newPair(t, jwtauth.ES256, "k1", 0)
	rs := newPair(t, jwtauth.RS256, "k1", 0)
	ed := newPair(t, jwtauth.EdDSA, "k1", 0)
	type m = map[string]any
	jwk := func(p pair, changes m) jwtauth.Key { return jwtauth.Key{JWK: text(p.with(changes))} }
	oct := func(changes m) jwtauth.Key {
		return jwk(pair{jwk: m{"kty": "oct", "alg": "HS256", "k": b64(secret)}}, changes)
	}
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, smallPEM := pemOf(t, small)
	_, p521PEM := pemOf(t, p521)
	even := new(big.Int).Lsh(big.NewInt(3), 2050)
	// Modulo each of the primes of CVE-2017-15361, one is a power of 65537.
	roca := big.NewInt(11 * 13 * 17 * 19 * 37 * 53 * 61 * 71)
	roca.Mul(roca, big.NewInt(73*79*97*103*107*109*127))
	roca.Mul(roca, big.NewInt(151*157))
	roca.Add(roca.Lsh(roca, 2000), big.NewInt(1))
	edBlock, _ := pem.Decode(ed.public)
	edBlock.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED"}
	x := es.jwk["x"].(string)
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	respelled := x[:42] + string(digits[strings.IndexByte(digits, x[42])|1])
	huge := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 8192), big.NewInt(1))
	rsBlock, _ := pem.Decode(rs.public)
	for _, row := range []struct {
		name  string
		key   jwtauth.Key
		field string
		want  wsauth.ConfigReason
	}{
		{"nothing", jwtauth.Key{}, ".Secret", wsauth.ConfigMissing},
		{"two kinds at once", jwtauth.Key{Secret: secret, PEM: es.public}, "", wsauth.ConfigMalformed},
		{"PEM and JWK", jwtauth.Key{JWK: text(es.jwk), PEM: es.public}, "", wsauth.ConfigMalformed},
		{"an unknown algorithm", jwtauth.Key{Secret: secret, Algorithm: "none"}, ".Algorithm", wsauth.ConfigUnknown},
		{"an algorithm that is not supported", jwtauth.Key{PEM: rs.public, Algorithm: "RS512"}, ".Algorithm", wsauth.ConfigUnknown},
		{"a public key as a secret", jwtauth.Key{Secret: rs.public}, ".Secret", wsauth.ConfigMalformed},
		{"one after text", jwtauth.Key{Secret: append([]byte("Bag Attributes\n"), es.public...)}, ".Secret", wsauth.ConfigMalformed},
		{"one in DER", jwtauth.Key{Secret: rsBlock.Bytes}, ".Secret", wsauth.ConfigMalformed},
		{"one in PKCS #1", jwtauth.Key{Secret: x509.MarshalPKCS1PublicKey(&rsaKeys()[0].PublicKey)}, ".Secret", wsauth.ConfigMalformed},
		{"one of ssh", jwtauth.Key{Secret: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@home")}, ".Secret", wsauth.ConfigMalformed},
		{"a JWK as a secret", jwtauth.Key{Secret: text(es.jwk)}, ".Secret", wsauth.ConfigMalformed},
		{"a public key as the secret of a JWK", oct(m{"k": b64(rs.public)}), ".JWK", wsauth.ConfigMalformed},
		{"a secret for RS256", jwtauth.Key{Secret: secret, Algorithm: jwtauth.RS256}, ".Algorithm", wsauth.ConfigMalformed},
		{"a secret of 44 bytes for HS384", jwtauth.Key{Secret: secret, Algorithm: jwtauth.HS384}, ".Secret", wsauth.ConfigTooShort},
		{"a secret of 63 bytes for HS512", jwtauth.Key{Secret: make([]byte, 63), Algorithm: jwtauth.HS512}, ".Secret", wsauth.ConfigTooShort},
		{"a public key for HS256", jwtauth.Key{PEM: rs.public, Algorithm: jwtauth.HS256}, ".PEM", wsauth.ConfigMalformed},
		{"RSA without an algorithm", jwtauth.Key{PEM: rs.public}, ".PEM", wsauth.ConfigMissing},
		{"RSA for ES256", jwtauth.Key{PEM: rs.public, Algorithm: jwtauth.ES256}, ".PEM", wsauth.ConfigMalformed},
		{"P-256 for ES384", jwtauth.Key{PEM: es.public, Algorithm: jwtauth.ES384}, ".PEM", wsauth.ConfigMalformed},
		{"RSA of 1024 bits", jwtauth.Key{PEM: smallPEM, Algorithm: jwtauth.RS256}, ".PEM", wsauth.ConfigTooShort},
		{"P-521", jwtauth.Key{PEM: p521PEM}, ".PEM", wsauth.ConfigUnknown},
		{"not PEM", jwtauth.Key{PEM: []byte("x")}, ".PEM", wsauth.ConfigMalformed},
		{"empty PEM", jwtauth.Key{PEM: []byte{}}, ".PEM", wsauth.ConfigMalformed},
		{"a certificate", jwtauth.Key{PEM: block("CERTIFICATE", []byte("x"))}, ".PEM", wsauth.ConfigUnknown},
		{"a PEM block of something else", jwtauth.Key{PEM: block("PUBLIC KEY", []byte("x"))}, ".PEM", wsauth.ConfigMalformed},
		{"two PEM blocks, of which one would be ignored", jwtauth.Key{PEM: append(bytes.Clone(es.public), ed.public...)}, ".PEM", wsauth.ConfigMalformed},
		{"a key with headers", jwtauth.Key{PEM: pem.EncodeToMemory(edBlock)}, ".PEM", wsauth.ConfigMalformed},
		{"an encrypted key", jwtauth.Key{PEM: []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n")}, ".PEM", wsauth.ConfigMalformed},

		{"not JSON", jwtauth.Key{JWK: []byte("x")}, ".JWK", wsauth.ConfigMalformed},
		{"white space", jwtauth.Key{JWK: []byte(" ")}, ".JWK", wsauth.ConfigMalformed},
		{"trailing junk", jwtauth.Key{JWK: append(text(es.jwk), 'x')}, ".JWK", wsauth.ConfigMalformed},
		{"a name twice", jwtauth.Key{JWK: []byte(`{"kty":"oct",` + string(text(es.jwk))[1:])}, ".JWK", wsauth.ConfigMalformed},
		{"no kty", jwk(es, m{"kty": nil}), ".JWK", wsauth.ConfigUnknown},
		{"kty a number", jwk(es, m{"kty": 1}), ".JWK", wsauth.ConfigMalformed},
		{"EC numbers as RSA", jwk(es, m{"kty": "RSA"}), ".JWK", wsauth.ConfigMalformed},
		{"RSA numbers as oct", jwk(rs, m{"kty": "oct", "alg": "HS256"}), ".JWK", wsauth.ConfigMalformed},
		{"RS256 for a P-256 key", jwk(es, m{"alg": "RS256"}), ".JWK", wsauth.ConfigMalformed},
		{"HS256 for a public key", jwk(rs, m{"alg": "HS256"}), ".JWK", wsauth.ConfigMalformed},
		{"an algorithm of encryption", jwk(rs, m{"alg": "RSA-OAEP"}), ".JWK", wsauth.ConfigMalformed},
		{"an empty algorithm", jwk(es, m{"alg": ""}), ".JWK", wsauth.ConfigMalformed},
		{"use enc", jwk(es, m{"use": "enc"}), ".JWK", wsauth.ConfigMalformed},
		{"key_ops without verify", jwk(es, m{"key_ops": []string{"encrypt"}}), ".JWK", wsauth.ConfigMalformed},
		{"key_ops of a signer on a public key", jwk(es, m{"key_ops": []string{"sign"}}), ".JWK", wsauth.ConfigMalformed},
		{"key_ops a string", jwk(es, m{"key_ops": "verify"}), ".JWK", wsauth.ConfigMalformed},
		{"key_ops empty", jwk(es, m{"key_ops": []string{}}), ".JWK", wsauth.ConfigMalformed},
		{"key_ops twice the same", jwk(es, m{"key_ops": []string{"verify", "verify"}}), ".JWK", wsauth.ConfigMalformed},
		{"another curve", jwk(es, m{"crv": "P-384"}), ".JWK", wsauth.ConfigMalformed},
		{"an unknown curve", jwk(es, m{"crv": "secp256k1"}), ".JWK", wsauth.ConfigUnknown},
		{"no curve", jwk(es, m{"crv": nil}), ".JWK", wsauth.ConfigUnknown},
		{"a point off the curve", jwk(es, m{"x": es.jwk["y"]}), ".JWK", wsauth.ConfigMalformed},
		{"the point at infinity", jwk(es, m{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), ".JWK", wsauth.ConfigMalformed},
		{"x with a byte more", jwk(es, m{"x": "AAAA" + es.jwk["x"].(string)}), ".JWK", wsauth.ConfigMalformed},
		{"x in another spelling", jwk(es, m{"x": respelled}), ".JWK", wsauth.ConfigMalformed},
		{"x in padded base64", jwk(es, m{"x": es.jwk["x"].(string) + "="}), ".JWK", wsauth.ConfigMalformed},
		{"no y", jwk(es, m{"y": nil}), ".JWK", wsauth.ConfigMalformed},
		{"d of another key", jwk(es, newPair(t, jwtauth.ES256, "", 0).secrets), ".JWK", wsauth.ConfigMalformed},
		{"d zero", jwk(es, m{"d": b64(make([]byte, 32))}), ".JWK", wsauth.ConfigMalformed},
		{"Ed25519 d of another key", jwk(ed, newPair(t, jwtauth.EdDSA, "", 0).secrets), ".JWK", wsauth.ConfigMalformed},
		{"Ed25519 x too short", jwk(ed, m{"x": "AAAA"}), ".JWK", wsauth.ConfigMalformed},
		{"Ed448", jwk(ed, m{"crv": "Ed448"}), ".JWK", wsauth.ConfigUnknown},
		{"RSA exponent 1, so a signature is its own text", jwk(rs, m{"e": number(1)}), ".JWK", wsauth.ConfigMalformed},
		{"RSA exponent even", jwk(rs, m{"e": number(65536)}), ".JWK", wsauth.ConfigMalformed},
		{"RSA exponent of 2^31+1, which takes long", jwk(rs, m{"e": number(1<<31 + 1)}), ".JWK", wsauth.ConfigMalformed},
		{"RSA exponent missing", jwk(rs, m{"e": nil}), ".JWK", wsauth.ConfigMalformed},
		{"RSA modulus missing", jwk(rs, m{"n": nil}), ".JWK", wsauth.ConfigMalformed},
		{"RSA modulus even", jwk(rs, m{"n": b64(even.Bytes())}), ".JWK", wsauth.ConfigMalformed},
		{"RSA modulus of 8193 bits, which takes long", jwk(rs, m{"n": b64(huge.Bytes())}), ".JWK", wsauth.ConfigTooLong},
		{"RSA modulus that anyone can factor", jwk(rs, m{"n": b64(roca.Bytes())}), ".JWK", wsauth.ConfigMalformed},
		{"RSA d without primes", jwk(rs, m{"d": rs.secrets["d"]}), ".JWK", wsauth.ConfigMalformed},
		{"RSA d of another key", jwk(rs, newPair(t, jwtauth.RS256, "", 1).secrets), ".JWK", wsauth.ConfigMalformed},
		{"RSA without alg", jwk(rs, m{"alg": nil}), ".JWK", wsauth.ConfigMissing},
		{"a secret without alg", oct(m{"alg": nil}), ".JWK", wsauth.ConfigMissing},
		{"a secret for AES", oct(m{"alg": "A256GCM"}), ".JWK", wsauth.ConfigMalformed},
		{"a short secret", oct(m{"k": b64(secret[:31])}), ".JWK", wsauth.ConfigTooShort},
		{"no secret", oct(m{"k": nil}), ".JWK", wsauth.ConfigMalformed},
		{"a secret in escapes", jwtauth.Key{JWK: []byte(`{"kty":"oct","alg":"HS256","k":"\u0041` + b64(secret)[1:] + `"}`)}, ".JWK", wsauth.ConfigMalformed},
		{"a kid that no header can name", jwk(es, m{"kid": `a"b`}), ".ID", wsauth.ConfigMalformed},
		{"a long kid", jwk(es, m{"kid": strings.Repeat("x", 129)}), ".ID", wsauth.ConfigMalformed},
		{"alg and Algorithm differ", jwtauth.Key{JWK: text(rs.jwk), Algorithm: jwtauth.PS256}, ".JWK", wsauth.ConfigMalformed},
	} {
		_, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{row.key}, AnySubject: true})
		problem, ok := errors.AsType[*jwtauth.ConfigError](err)
		if !ok || problem.Field != "Config.Keys[0]"+row.field || !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %s: %s", row.name, err, row.field, row.want)
		}
	}
}

// One key material in two roles is refused, whatever its notation.
func TestDuplicateKeys(t *testing.T) {
	rs := newPair(t, jwtauth.RS256, "k1", 0)
	_, err := jwtauth.New(jwtauth.Config{AnySubject: true, Keys: []jwtauth.Key{
		{PEM: rs.public, Algorithm: jwtauth.PS256},
		{JWK: text(rs.jwk)},
		{ID: "k1", Secret: secret},
	}})
	found := problems(err)
	for _, want := range []string{"Config.Keys[1].JWK is a duplicate", "Config.Keys[2].ID is a duplicate"} {
		if !found[want] {
			t.Errorf("not reported: %s in %v", want, err)
		}
	}
}

// Notations of other tools are read.
func TestNotations(t *testing.T) {
	es := newPair(t, jwtauth.ES256, "k1", 0)
	k := rsaKeys()[0]
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.MarshalECPrivateKey(ec)
	for name, key := range map[string]jwtauth.Key{
		"openssl ecparam":      {PEM: append(block("EC PARAMETERS", []byte{6, 0}), block("EC PRIVATE KEY", der)...)},
		"openssl genrsa":       {PEM: block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)), Algorithm: jwtauth.PS256},
		"RSA PUBLIC KEY":       {PEM: block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.PublicKey)), Algorithm: jwtauth.RS256},
		"a blank line after":   {PEM: append(bytes.Clone(es.public), "\n \n"...)},
		"key_ops verify":       {JWK: text(es.with(map[string]any{"key_ops": []string{"verify"}}))},
		"no use":               {JWK: text(es.with(map[string]any{"use": nil, "alg": nil}))},
		"unknown members":      {JWK: text(es.with(map[string]any{"x5c": []string{"x"}, "ext": true}))},
		"an ID for a JWK":      {ID: "mine", JWK: text(es.jwk)},
		"white space in a JWK": {JWK: append([]byte(" \n"), text(es.jwk)...)},
	} {
		if _, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{key}, AnySubject: true}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// PS256 requires a salt as long as the hash (RFC 7518, section 3.5), and a key
// for PS256 refuses RS256.
func TestSalt(t *testing.T) {
	k := rsaKeys()[0]
	_, public := pemOf(t, k)
	v := anyone(t, jwtauth.Key{PEM: public, Algorithm: jwtauth.PS256})
	for salt, want := range map[int]wsauth.Reason{32: "", 20: wsauth.ReasonSignature, 64: wsauth.ReasonSignature} {
		token := forge.PSS(`{"alg":"PS256"}`, `{"sub":"a","exp":9999999999}`, k, salt)
		if _, err := v.Verify(t.Context(), []byte(token), now); reasonOf(t, err) != want {
			t.Errorf("a salt of %d bytes: %v, want %q", salt, err, want)
		}
	}
}
