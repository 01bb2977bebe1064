package jwtauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"

	"github.com/relayguard/relayguard/wsauth"
)

// Bounds of an RSA key. More bits would let one signature check take long.
const (
	minRSA = 2048 // bits (RFC 7518, section 3.3)
	maxRSA = 8192
)

const all set = 1<<len(algorithms) - 1

// problem returns a [wsauth.ConfigReason] with more words for a person.
func problem(r wsauth.ConfigReason, why string) error { return fmt.Errorf("%w: %s", r, why) }

func newSecret(secret []byte, alg algorithm) (ringKey, error) {
	switch least := algorithms[alg].secret; {
	case secret == nil:
		return ringKey{}, wsauth.ConfigMissing
	case len(secret) < least:
		return ringKey{}, problem(wsauth.ConfigTooShort, fmt.Sprintf("%s needs %d bytes", algorithms[alg].name, least))
	case isKeyFile(secret):
		return ringKey{}, problem(wsauth.ConfigMalformed, "it is a key of another algorithm, which may be public; set PEM or JWK instead")
	}
	secret = bytes.Clone(secret)
	return ringKey{private: secret, material: &material{
		alg: alg, public: secret, signature: algorithms[alg].signature, fingerprint: sha256.Sum256(append([]byte("secret "), secret...)),
	}}, nil
}

// isKeyFile recognizes a key of another algorithm, in any common notation. If a
// public key were a secret, every reader of it could sign (CVE-2022-29217).
func isKeyFile(secret []byte) bool {
	for _, start := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if bytes.HasPrefix(secret, []byte(start)) {
			return true
		}
	}
	_, notPKIX := x509.ParsePKIXPublicKey(secret)
	_, notPKCS1 := x509.ParsePKCS1PublicKey(secret)
	_, notCertificate := x509.ParseCertificate(secret)
	return notPKIX == nil || notPKCS1 == nil || notCertificate == nil ||
		bytes.Contains(secret, []byte("-----BEGIN ")) || bytes.Contains(secret, []byte(`"kty"`))
}

// newPublic checks a public key. alg is the algorithm that the caller wants, or
// empty.
func newPublic(public crypto.PublicKey, alg string, allowed set) (ringKey, error) {
	var kty, crv string
	var length int
	switch k := public.(type) {
	case *rsa.PublicKey:
		if err := checkRSA(k); err != nil {
			return ringKey{}, err
		}
		kty, length = "RSA", k.Size()
	case *ecdsa.PublicKey:
		kty, crv = "EC", k.Curve.Params().Name
	case ed25519.PublicKey:
		kty, crv = "OKP", "Ed25519"
	default:
		return ringKey{}, problem(wsauth.ConfigUnknown, "a key of another type")
	}
	a, ok := forKey(kty, crv, alg, allowed)
	switch {
	case !ok && kty == "RSA" && alg == "":
		return ringKey{}, problem(wsauth.ConfigMissing, "an RSA key needs an algorithm, RS256 or PS256")
	case !ok && alg != "":
		return ringKey{}, problem(wsauth.ConfigMalformed, "the key is not one for its algorithm, or the algorithm is not allowed")
	case !ok:
		return ringKey{}, problem(wsauth.ConfigUnknown, "a curve without an algorithm that is allowed")
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ringKey{}, problem(wsauth.ConfigMalformed, "not a point on its curve")
	}
	if n := algorithms[a].signature; n != 0 {
		length = n
	}
	return ringKey{material: &material{alg: a, public: public, signature: length, fingerprint: sha256.Sum256(der)}}, nil
}

func newPrivate(private crypto.PrivateKey, alg string, allowed set) (ringKey, error) {
	signer, ok := private.(crypto.Signer)
	if !ok {
		return ringKey{}, problem(wsauth.ConfigUnknown, "a key that cannot sign")
	}
	key, err := newPublic(signer.Public(), alg, allowed)
	key.private = private
	return key, err
}

func checkRSA(k *rsa.PublicKey) error {
	switch bits := k.N.BitLen(); {
	case bits < minRSA:
		return problem(wsauth.ConfigTooShort, fmt.Sprintf("an RSA key needs %d bits", minRSA))
	case bits > maxRSA:
		return problem(wsauth.ConfigTooLong, fmt.Sprintf("an RSA key has at most %d bits", maxRSA))
	case k.N.Bit(0) == 0:
		return problem(wsauth.ConfigMalformed, "the modulus is even")
	case k.E < 3 || k.E%2 == 0 || k.E > 1<<31-1:
		return problem(wsauth.ConfigMalformed, "the exponent is even, 1 or too large")
	case isROCA(k.N):
		return problem(wsauth.ConfigMalformed, "the modulus has the form of CVE-2017-15361, so anyone can factor it")
	}
	return nil
}

// isROCA recognizes the moduli of CVE-2017-15361: modulo each of these primes,
// they are a power of 65537. A random modulus is one for all of them with a
// probability below 2^-27.
func isROCA(n *big.Int) bool {
	primes := []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}
	rest := new(big.Int)
	for _, p := range primes {
		r := rest.Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			found = found || power == r
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

func parsePEM(text []byte, alg string) (ringKey, error) {
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" { // which openssl writes before the key
		block, rest = pem.Decode(rest)
	}
	switch {
	case block == nil:
		return ringKey{}, problem(wsauth.ConfigMalformed, "no PEM block")
	case len(bytes.TrimSpace(rest)) > 0:
		return ringKey{}, problem(wsauth.ConfigMalformed, "there is text after the key")
	case len(block.Headers) > 0:
		return ringKey{}, problem(wsauth.ConfigMalformed, "an encrypted key, or headers")
	}
	var key any
	var err error
	private := false
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		private = true
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
		private = true
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		private = true
	default:
		return ringKey{}, problem(wsauth.ConfigUnknown, "a PEM block that is not a key")
	}
	switch {
	case err != nil:
		return ringKey{}, problem(wsauth.ConfigMalformed, "the PEM block does not hold such a key")
	case private:
		return newPrivate(key, alg, all)
	}
	return newPublic(key, alg, all)
}

// NewKeyPair returns a new pair of keys for alg, which is [EdDSA] or [ES256],
// in PEM: a block PRIVATE KEY for the signer, and a block PUBLIC KEY for
// everyone who verifies. For another algorithm, the error is a [*ConfigError].
func NewKeyPair(alg string) (private, public []byte, err error) {
	var signer crypto.Signer
	switch alg {
	case EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = &ConfigError{"Key.Algorithm", wsauth.ConfigUnknown}
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), nil
}
