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
var (
	signers   = primitives[signer](jws.NewSigner, pss{})
	verifiers = primitives[jws.Verifier](jws.NewVerifier, pss{})
)

type signer interface {
	Sign(payload []byte, key any) ([]byte, error)
}

func primitives[P, T any](create func(jwa.SignatureAlgorithm) (T, error), ps256Primitive P) (list [len(algorithms)]P) {
	for a := hs256; int(a) < len(algorithms); a++ {
		p, err := create(jwa.SignatureAlgorithm(algorithms[a].name))
		if err != nil {
			panic(err) // every algorithm is built into jwx
		}
		list[a] = any(p).(P)
	}
	list[ps256] = ps256Primitive
	return list
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
