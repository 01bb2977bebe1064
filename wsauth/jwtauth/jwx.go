package jwtauth

//lint:file-ignore SA1019 jwx/v2 is the last of its line, and the library that the project chose.

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Only this file uses jwx, so that another library can replace it here. It uses
// only the primitives: the parser of jwx accepts serializations, headers and
// claims that this package refuses, and takes longer than all checks of this
// package. The objects are created once, so that an algorithm that is
// registered in jwx later has no effect here.
var signers, verifiers = primitives()

type signer interface {
	Sign(payload []byte, key any) ([]byte, error)
}

func primitives() (s [len(algorithms)]signer, v [len(algorithms)]jws.Verifier) {
	for a := hs256; int(a) < len(algorithms); a++ {
		var err, err2 error
		s[a], err = jws.NewSigner(jwa.SignatureAlgorithm(algorithms[a].name))
		v[a], err2 = jws.NewVerifier(jwa.SignatureAlgorithm(algorithms[a].name))
		if err != nil || err2 != nil {
			panic("jwtauth: every algorithm is built into jwx")
		}
	}
	s[ps256], v[ps256] = pss{}, pss{}
	return s, v
}

// pss is PS256 by the standard library: jwx accepts a salt of any length, and
// RFC 7518, section 3.5, requires the length of the hash.
type pss struct{}

var pssOptions = &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthEqualsHash}

func (pss) Sign(payload []byte, key any) ([]byte, error) {
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("jwtauth: not a private RSA key")
	}
	sum := sha256.Sum256(payload)
	return rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], pssOptions)
}

func (pss) Verify(payload, signature []byte, key any) error {
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return errors.New("jwtauth: not a public RSA key")
	}
	sum := sha256.Sum256(payload)
	return rsa.VerifyPSS(public, crypto.SHA256, sum[:], signature, pssOptions)
}

func sign(k *ringKey, signingInput []byte) ([]byte, error) {
	return signers[k.alg].Sign(signingInput, k.private)
}

// signed reports whether k made the signature. It compares MACs in constant
// time.
func signed(k *ringKey, signingInput, signature []byte) bool {
	return len(signature) == k.signature && verifiers[k.alg].Verify(signingInput, signature, k.public) == nil
}
