package jwtauth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

// members reads a JSON object of at most most members in which no name occurs
// twice, and calls each with every member.
func members(text []byte, most int, each func(name string, value []byte) error) error {
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		return errors.New("not a JSON object")
	}
	seen := make(map[string]bool)
	var failed error
	m := strictjson.Read(text)
	for m.Next() {
		name, ok := strictjson.String(m.Name())
		if !ok || seen[name] || len(seen) == most {
			return errors.New("a name occurs twice, or there are too many")
		}
		seen[name] = true
		if err := each(name, m.Value()); err != nil && failed == nil {
			failed = err
		}
	}
	if m.Err != nil {
		return errors.New("not JSON")
	}
	return failed
}

// jwk is the members of a JSON Web Key that this package uses.
type jwk struct {
	kty, alg, use, kid, crv string
	ops                     []string
	hasUse, hasOps, more    bool
	number                  map[string][]byte // the decoded value of each other member
}

// parseJWK parses one key (RFC 7517; RFC 7518, section 6; RFC 8037, section 2).
// alg is the algorithm that the caller wants, or empty. The algorithm is one of
// allowed, and one of implied if neither the caller nor the key names it.
// Members that do not matter here, such as "x5c", are ignored.
func parseJWK(text []byte, alg string, allowed, implied set) (ringKey, error) {
	k := jwk{number: map[string][]byte{}}
	if err := members(text, maxMembers, k.read); err != nil {
		return ringKey{}, problem(wsauth.ConfigMalformed, err.Error())
	}
	switch {
	case alg != "" && k.alg != "" && alg != k.alg:
		return ringKey{}, problem(wsauth.ConfigMalformed, `"alg" is another algorithm`)
	case k.alg != "":
		alg = k.alg
	case alg == "":
		allowed = implied
	}
	_, private := k.number["d"]
	if err := k.mayBeUsed(private); err != nil {
		return ringKey{}, err
	}
	key, err := k.key(alg, allowed, private)
	key.id = k.kid
	return key, err
}

func (k *jwk) read(name string, value []byte) error {
	text := func(dst *string) error {
		got, ok := strictjson.String(value)
		if !ok || got == "" {
			return errors.New(name + " is not a string, or is empty")
		}
		*dst = got
		return nil
	}
	switch name {
	case "kty":
		return text(&k.kty)
	case "alg":
		return text(&k.alg)
	case "crv":
		return text(&k.crv)
	case "kid":
		return text(&k.kid)
	case "use":
		k.hasUse = true
		return text(&k.use)
	case "key_ops":
		list, ok := strictjson.Elements(value)
		for _, e := range list {
			op, isText := strictjson.String(e)
			ok = ok && isText && !slices.Contains(k.ops, op)
			k.ops = append(k.ops, op)
		}
		if k.hasOps = true; !ok {
			return errors.New("key_ops is not a list of different strings")
		}
	case "oth":
		k.more = true
	case "n", "e", "x", "y", "d", "p", "q", "k":
		if bytes.IndexByte(value, '\\') >= 0 || len(value) < 3 || value[0] != '"' {
			return errors.New(name + " is not base64url")
		}
		encoded := value[1 : len(value)-1]
		decoded := make([]byte, decodedLen(len(encoded)))
		if !canonical(encoded) || !decode(decoded, encoded) {
			return errors.New(name + " is not base64url")
		}
		k.number[name] = decoded
	}
	return nil
}

// mayBeUsed checks "use" and "key_ops" (RFC 7517, sections 4.2 and 4.3).
func (k *jwk) mayBeUsed(private bool) error {
	if k.hasUse && k.use != "sig" {
		return problem(wsauth.ConfigMalformed, `"use" is not "sig"`)
	}
	if k.hasOps && !slices.Contains(k.ops, "verify") && !(private && slices.Contains(k.ops, "sign")) {
		return problem(wsauth.ConfigMalformed, `"key_ops" does not allow it to verify`)
	}
	return nil
}

func (k *jwk) key(alg string, allowed set, private bool) (ringKey, error) {
	bad := func(why string) (ringKey, error) { return ringKey{}, problem(wsauth.ConfigMalformed, why) }
	switch k.kty {
	case "oct":
		a, ok := forKey("oct", k.crv, alg, allowed)
		switch {
		case !ok && alg == "":
			return ringKey{}, problem(wsauth.ConfigMissing, "a secret needs an algorithm, HS256, HS384 or HS512")
		case !ok:
			return bad("a secret for an algorithm that has none, or that is not allowed")
		case k.number["k"] == nil:
			return bad("k is missing")
		}
		return newSecret(k.number["k"], a)
	case "RSA":
		public, ok := k.rsa()
		switch {
		case !ok:
			return bad("n or e is missing, or e is too large")
		case !private:
			return newPublic(public, alg, allowed)
		case checkRSA(public) != nil:
			return ringKey{}, checkRSA(public)
		case k.more || k.number["p"] == nil || k.number["q"] == nil:
			return bad("a private RSA key needs p and q, and no more primes")
		}
		secret := &rsa.PrivateKey{PublicKey: *public, D: number(k.number["d"]), Primes: []*big.Int{number(k.number["p"]), number(k.number["q"])}}
		secret.Precompute()
		if secret.Validate() != nil {
			return bad("the numbers of the private key do not belong together")
		}
		return newPrivate(secret, alg, allowed)
	case "EC":
		return k.ec(alg, allowed, private)
	case "OKP":
		x, d := k.number["x"], k.number["d"]
		switch {
		case k.crv != "Ed25519":
			return ringKey{}, problem(wsauth.ConfigUnknown, "a curve that is not Ed25519")
		case len(x) != ed25519.PublicKeySize || private && len(d) != ed25519.SeedSize:
			return bad("x or d has another length than the curve")
		case !private:
			return newPublic(ed25519.PublicKey(x), alg, allowed)
		}
		secret := ed25519.NewKeyFromSeed(d)
		if !bytes.Equal(secret.Public().(ed25519.PublicKey), x) {
			return bad("d and x do not belong together")
		}
		return newPrivate(secret, alg, allowed)
	}
	return ringKey{}, problem(wsauth.ConfigUnknown, "a key of another type")
}

func (k *jwk) rsa() (*rsa.PublicKey, bool) {
	n, e := k.number["n"], number(k.number["e"])
	if len(n) == 0 || len(n) > maxRSA || !e.IsInt64() || e.Int64() > 1<<31-1 {
		return nil, false
	}
	return &rsa.PublicKey{N: number(n), E: int(e.Int64())}, true
}

func number(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

func (k *jwk) ec(alg string, allowed set, private bool) (ringKey, error) {
	var curve elliptic.Curve
	switch k.crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	default:
		return ringKey{}, problem(wsauth.ConfigUnknown, "a curve without an algorithm here")
	}
	bad := func(why string) (ringKey, error) { return ringKey{}, problem(wsauth.ConfigMalformed, why) }
	x, y, size := k.number["x"], k.number["y"], curve.Params().BitSize/8
	if len(x) != size || len(y) != size {
		return bad("x or y has another length than the curve")
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	switch {
	case err != nil:
		return bad("the point is not on the curve")
	case !private:
		return newPublic(public, alg, allowed)
	case len(k.number["d"]) != size:
		return bad("d has another length than the curve")
	}
	secret, err := ecdsa.ParseRawPrivateKey(curve, k.number["d"])
	if err != nil || !secret.PublicKey.Equal(public) {
		return bad("d and the point do not belong together")
	}
	return newPrivate(secret, alg, allowed)
}
