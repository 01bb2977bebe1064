package jwtauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

const (
	signatureLen = 43  // characters of 32 bytes in base64url without padding
	maxHeader    = 512 // characters of an encoded header
	maxMembers   = 32  // members of a header or a set of claims
)

// Errors for tokens without a valid signature contain only a reason, so they
// are allocated once.
var (
	errMalformed = &wsauth.Error{Reason: wsauth.ReasonMalformed}
	errAlgorithm = &wsauth.Error{Reason: wsauth.ReasonAlgorithm}
	errHeader    = &wsauth.Error{Reason: wsauth.ReasonHeader}
	errKey       = &wsauth.Error{Reason: wsauth.ReasonKey}
	errSignature = &wsauth.Error{Reason: wsauth.ReasonSignature}
)

// Verify returns the identity in token if the token is valid at the time now.
// Its error is a [*wsauth.Error].
func (h *Verifier) Verify(_ context.Context, token []byte, now time.Time) (wsauth.Identity, error) {
	id, err := h.verify(token, now)
	if err == nil {
		id.Handle.(*material).countUse(now)
	}
	return id, err
}

func (h *Verifier) verify(token []byte, now time.Time) (wsauth.Identity, error) {
	p, refused := split(token)
	if refused != nil {
		return wsauth.Identity{}, refused
	}
	key, refused := h.signer(p, now)
	if refused != nil {
		return wsauth.Identity{}, refused
	}
	claims := make([]byte, decodedLen(len(p.claims)))
	if !decode(claims, p.claims) {
		return wsauth.Identity{}, errMalformed
	}
	return h.identify(claims, key, now)
}

// signer returns the key that made the signature.
func (h *Verifier) signer(p parts, now time.Time) (*ringKey, *wsauth.Error) {
	signature := make([]byte, decodedLen(signatureLen))
	if !decode(signature, p.signature) {
		return nil, errMalformed
	}
	ring := *h.ring.Load()
	named := -1
	for i := range ring {
		if p.keyID.len > 0 && p.keyID.is(ring[i].id) {
			named = i
		}
	}
	refused := errKey
	for i := range ring {
		k := &ring[i]
		eligible := p.keyID.len == 0 || i == named || named < 0 && k.id == ""
		if !eligible || !k.inForce(now) {
			continue
		}
		if verifyHS256(p.signed, signature, k.secret) {
			return k, nil
		}
		refused = errSignature
	}
	return nil, refused
}

// parts are the parts of a compact JWS (RFC 7515, section 7.1). All except the
// key ID are still encoded.
type parts struct {
	signed, claims, signature []byte
	keyID                     shortText
}

// shortText is a text that needs no allocation.
type shortText struct {
	text [maxName]byte
	len  int
}

func (t *shortText) is(s string) bool { return string(t.text[:t.len]) == s }

// split returns the parts of a compact JWS in canonical base64url without
// padding whose header names Verifier and has no member that [Verifier] would have to
// understand. It refuses everything else, and makes the cheapest checks first.
func split(token []byte) (parts, *wsauth.Error) {
	var p parts
	if len(token) > maxToken {
		return p, errMalformed
	}
	dot1 := bytes.IndexByte(token, '.')
	dot2 := bytes.LastIndexByte(token, '.')
	if dot1 <= 0 || dot2 <= dot1+1 || len(token)-dot2-1 != signatureLen || dot1 > maxHeader {
		return p, errMalformed
	}
	header := token[:dot1]
	p.claims, p.signed, p.signature = token[dot1+1:dot2], token[:dot2], token[dot2+1:]
	if !canonical(header) || !canonical(p.signature) {
		return p, errMalformed
	}
	var refused *wsauth.Error
	if p.keyID, refused = gate(header); refused != nil {
		return p, refused
	}
	if !canonical(p.claims) {
		return p, errMalformed
	}
	return p, nil
}

// commonHeader is {"alg":"HS256","typ":"JWT"}, which most tokens have.
const commonHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// gate reads the header (RFC 7515, section 4). It ignores unknown members, as
// the RFC requires, and refuses "crit" and "b64": the first requires an
// extension, the second changes the text that is signed.
func gate(header []byte) (keyID shortText, refused *wsauth.Error) {
	if string(header) == commonHeader {
		return keyID, nil
	}
	var room [maxHeader]byte
	text := room[:decodedLen(len(header))]
	if !decode(text, header) {
		return keyID, errMalformed
	}
	if text[0] != '{' {
		return keyID, errHeader
	}
	var names [maxMembers][]byte
	n, algorithm := 0, false
	m := strictjson.Read(text)
	for m.Next() {
		// An escaped name could be one that matters in disguise, and no signer
		// escapes names.
		if n == maxMembers || bytes.IndexByte(m.Name(), '\\') >= 0 {
			return keyID, errHeader
		}
		for _, seen := range names[:n] {
			if bytes.Equal(seen, m.Name()) {
				return keyID, errHeader
			}
		}
		names[n] = m.Name()
		n++
		switch string(m.Name()) {
		case `"alg"`:
			algorithm = string(m.Value()) == `"HS256"`
		case `"kid"`:
			id := m.Value()
			if len(id) > len(keyID.text) || id[0] != '"' || bytes.IndexByte(id, '\\') >= 0 {
				return keyID, errHeader
			}
			keyID.len = copy(keyID.text[:], id[1:len(id)-1])
		case `"crit"`, `"b64"`:
			return keyID, errHeader
		}
	}
	switch {
	case m.Err != nil:
		return keyID, errHeader
	case !algorithm:
		return keyID, errAlgorithm
	}
	return keyID, nil
}

// base64url is the value of each character plus one, and 0 for all characters
// outside of the alphabet (RFC 4648, section 5).
var base64url = func() (t [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = byte(i) + 1
	}
	return t
}()

// canonical reports whether b is what an encoder writes: only characters of the
// alphabet, a possible length, and no unused bits set in the last character.
// Without the check of the last character, four spellings of one signature
// would be valid.
func canonical(b []byte) bool {
	for _, c := range b {
		if base64url[c] == 0 {
			return false
		}
	}
	switch last := base64url[b[len(b)-1]] - 1; len(b) % 4 {
	case 1:
		return false
	case 2:
		return last&0x0f == 0
	case 3:
		return last&0x03 == 0
	}
	return true
}

func decodedLen(n int) int { return base64.RawURLEncoding.DecodedLen(n) }

func decode(dst, src []byte) bool {
	n, err := base64.RawURLEncoding.Decode(dst, src)
	return err == nil && n == len(dst)
}
