package jwtauth

import "slices"

// Algorithms of JSON Web Signatures (RFC 7518, section 3.1; RFC 8037, section
// 3.1). There are no others: no "none", and no hash that is shorter or a curve
// that is larger than services use.
const (
	HS256 = "HS256" // HMAC with SHA-256
	HS384 = "HS384" // HMAC with SHA-384
	HS512 = "HS512" // HMAC with SHA-512
	RS256 = "RS256" // RSA, PKCS #1 v1.5, with SHA-256
	PS256 = "PS256" // RSA, PSS, with SHA-256
	ES256 = "ES256" // ECDSA on P-256 with SHA-256
	ES384 = "ES384" // ECDSA on P-384 with SHA-384
	EdDSA = "EdDSA" // Ed25519
)

// algorithm is an index of algorithms.
type algorithm uint8

const (
	none algorithm = iota
	hs256
	hs384
	hs512
	rs256
	ps256
	es256
	es384
	edDSA
)

// algorithms describes each algorithm. A secret has at least as many bytes as
// the hash (RFC 7518, section 3.2). signature is the length of a signature in
// bytes, or 0 if it depends on the key.
var algorithms = [...]struct {
	name, quoted string
	kty, crv     string
	secret       int
	signature    int
}{
	hs256: {HS256, `"HS256"`, "oct", "", 32, 32},
	hs384: {HS384, `"HS384"`, "oct", "", 48, 48},
	hs512: {HS512, `"HS512"`, "oct", "", 64, 64},
	rs256: {RS256, `"RS256"`, "RSA", "", 0, 0},
	ps256: {PS256, `"PS256"`, "RSA", "", 0, 0},
	es256: {ES256, `"ES256"`, "EC", "P-256", 0, 64},
	es384: {ES384, `"ES384"`, "EC", "P-384", 0, 96},
	edDSA: {EdDSA, `"EdDSA"`, "OKP", "Ed25519", 0, 64},
}

// algorithmOf returns the algorithm of that name, or none.
func algorithmOf(name string) algorithm {
	for a := hs256; int(a) < len(algorithms); a++ {
		if algorithms[a].name == name {
			return a
		}
	}
	return none
}

// set is a set of algorithms.
type set uint16

func (s set) has(a algorithm) bool { return a != none && s&(1<<a) != 0 }
func (s *set) add(a algorithm)     { *s |= 1 << a }

// forKey returns the algorithm of a key of the type kty on the curve crv. If
// several fit, it is the one named alg; if alg is empty, it is the only one of
// them in allowed.
func forKey(kty, crv, alg string, allowed set) (algorithm, bool) {
	var fit []algorithm
	for a := hs256; int(a) < len(algorithms); a++ {
		if algorithms[a].kty == kty && algorithms[a].crv == crv && allowed.has(a) {
			fit = append(fit, a)
		}
	}
	if alg != "" {
		a := algorithmOf(alg)
		return a, slices.Contains(fit, a)
	}
	if len(fit) != 1 {
		return none, false
	}
	return fit[0], true
}
