package wsauth

import (
	"bytes"
	"encoding/base64"
	"time"

	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

const (
	signatureLen = 43  // 32 bytes in base64url without padding
	maxHeader    = 512 // bytes of an encoded header at most
	maxMembers   = 32  // members of a header or a claims set at most
)

// Refusals of tokens that were not signed by us carry nothing but the reason, so one of each is enough.
var (
	errMalformed = &Error{Reason: ReasonMalformed}
	errAlgorithm = &Error{Reason: ReasonAlgorithm}
	errHeader    = &Error{Reason: ReasonHeader}
	errKey       = &Error{Reason: ReasonKey}
	errSignature = &Error{Reason: ReasonSignature}
)

// Verify decides about a token at the present time; its error is an [*Error].
func (h *HS256) Verify(token []byte) (Identity, error) { return h.VerifyAt(token, time.Now()) }

// VerifyAt decides about a token at the time now; its error is an [*Error].
func (h *HS256) VerifyAt(token []byte, now time.Time) (Identity, error) {
	id, err := h.verify(token, now)
	if err == nil {
		id.key.vouched(now)
	}
	return id, err
}

func (h *HS256) verify(token []byte, now time.Time) (Identity, error) {
	p, refused := split(token)
	if refused != nil {
		return Identity{}, refused
	}
	key, refused := h.signer(p, now)
	if refused != nil {
		return Identity{}, refused
	}
	claims := make([]byte, decodedLen(len(p.claims)))
	if !decode(claims, p.claims) {
		return Identity{}, errMalformed
	}
	return h.identify(claims, key, now)
}

// signer finds the key that made the signature.
func (h *HS256) signer(p parts, now time.Time) (*ringKey, *Error) {
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

// parts of a compact JWS (RFC 7515, section 7.1), still encoded but for the key ID.
type parts struct {
	signed, claims, signature []byte
	keyID                     shortText
}

// shortText is text without an allocation.
type shortText struct {
	text [maxName]byte
	len  int
}

func (t *shortText) is(s string) bool { return string(t.text[:t.len]) == s }

// split is the front: it admits nothing but a compact JWS in canonical base64url without padding whose header says
// HS256 and nothing that would have to be understood. It checks the cheapest first.
func split(token []byte) (parts, *Error) {
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
	var refused *Error
	if p.keyID, refused = gate(header); refused != nil {
		return p, refused
	}
	if !canonical(p.claims) {
		return p, errMalformed
	}
	return p, nil
}

// commonHeader is {"alg":"HS256","typ":"JWT"}, which most tokens carry.
const commonHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// gate reads the header (RFC 7515, section 4): unknown members are ignored, as they must be, save those that change
// what is signed or demand to be understood.
func gate(header []byte) (keyID shortText, refused *Error) {
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
		// A name in escapes could hide one that matters, and nobody writes header names so.
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

// base64url: the value of each character plus one, 0 for those outside the alphabet (RFC 4648, section 5).
var base64url = func() (t [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = byte(i) + 1
	}
	return t
}()

// canonical reports whether b is what an encoder writes: only the alphabet, a length that can be, and no stray bits
// in the last character. Without the last, four spellings of one signature would verify.
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
