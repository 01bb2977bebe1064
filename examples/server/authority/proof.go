package authority

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// Proofs returns proofs that the server has its keys, one for each. nonce is
// the client's, and addr is the address that the client has reached.
func (a *Authority) Proofs(nonce, addr string) []string {
	keys := *a.secrets.Load()
	all := make([]string, len(keys))
	for i, key := range keys {
		all[i] = proof(key, nonce, addr)
	}
	return all
}

// Proved reports whether one of proofs shows that its maker has key.
func Proved(key jwtauth.Key, proofs []string, nonce, addr string) bool {
	want := []byte(proof(key, nonce, addr))
	return slices.ContainsFunc(proofs, func(p string) bool { return hmac.Equal([]byte(p), want) })
}

// proof derives a key of its own, so that no proof is a signature of a token.
func proof(key jwtauth.Key, nonce, addr string) string {
	mac := func(key, text []byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(text)
		return m.Sum(nil)
	}
	derived := mac(key.Secret, []byte("relayguard: proof of an operator's listener"))
	return base64.RawURLEncoding.EncodeToString(mac(derived, []byte(nonce+"\n"+addr)))
}
