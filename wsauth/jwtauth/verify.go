package jwtauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

const (
	minSignature = 43   // characters of 32 bytes in base64url without padding
	maxSignature = 1366 // characters of 1024 bytes
	maxHeader    = 1024 // characters of an encoded header
	maxMembers   = 32   // members of a header or a key
	maxClaims    = 64   // members of a set of claims
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
// Its error is a [*wsauth.Error], or a [*wsauth.UnavailableError] if the token
// may be signed by a provider whose keys cannot be fetched.
//
// A token whose key is known never waits. A token with an unknown key, whose
// "iss" is the issuer of a provider, waits for a fetch of its keys, until ctx
// ends, if [Config].MinRefreshInterval allows one; any number of tokens wait
// for the same fetch. The fetch has a goroutine of its own, which ends within
// 10 seconds.
func (v *Verifier) Verify(ctx context.Context, token []byte, now time.Time) (wsauth.Identity, error) {
	var p parts
	if refused := v.split(&p, token); refused != nil {
		return wsauth.Identity{}, refused
	}
	signature, refused := p.decodeSignature()
	if refused != nil {
		return wsauth.Identity{}, refused
	}
	key, named, refused := v.signer(&p, signature, now)
	if key == nil && !named && len(v.providers) > 0 {
		var err error
		if key, err = v.ask(ctx, &p, signature, now); err != nil {
			return wsauth.Identity{}, err
		}
	}
	if key == nil {
		return wsauth.Identity{}, refused
	}
	id, err := v.claimsOf(&p, key, now)
	if err == nil {
		key.countUse(now)
	}
	return id, err
}

// verifySigned is Verify with the keys that are known, and without counting.
func (v *Verifier) verifySigned(token []byte, now time.Time) (wsauth.Identity, error) {
	var p parts
	if refused := v.split(&p, token); refused != nil {
		return wsauth.Identity{}, refused
	}
	signature, refused := p.decodeSignature()
	if refused != nil {
		return wsauth.Identity{}, refused
	}
	key, _, refused := v.signer(&p, signature, now)
	if key == nil {
		return wsauth.Identity{}, refused
	}
	return v.claimsOf(&p, key, now)
}

func (v *Verifier) claimsOf(p *parts, key *ringKey, now time.Time) (wsauth.Identity, error) {
	text, ok := p.decodeClaims()
	if !ok {
		return wsauth.Identity{}, errMalformed
	}
	return v.identify(text, key, p.rightType, now)
}

// signer returns the key that made the signature. named says whether the
// header names a key that is known.
func (v *Verifier) signer(p *parts, signature []byte, now time.Time) (key *ringKey, named bool, refused *wsauth.Error) {
	keys := v.ring.Load().keys
	at := -1
	for i := range keys {
		if p.keyID.len > 0 && p.keyID.is(keys[i].id) {
			at, named = i, true
		}
	}
	refused = errKey
	for i := range keys {
		k := &keys[i]
		eligible := p.keyID.len == 0 || i == at || at < 0 && k.id == ""
		if !eligible || k.alg != p.alg || !k.inForce(now) {
			continue
		}
		if signed(k, p.signed, signature) {
			return k, true, nil
		}
		refused = errSignature
	}
	for _, from := range v.candidates(p) {
		set := from.usable()
		if set == nil {
			continue
		}
		k := set.key(p)
		if k == nil {
			continue
		}
		// Also if the signature is wrong: the provider may have replaced the
		// key and kept its ID.
		if time.Since(set.fetched) > v.cfg.RefreshInterval {
			from.start()
		}
		if signed(k, p.signed, signature) {
			return k, true, nil
		}
		named = named || p.keyID.len > 0
		refused = errSignature
	}
	return nil, named, refused
}

// candidates returns the providers whose keys may have signed the token. Two of
// them may publish the same key. So if there are several, it is the provider
// that the token names, if it names one.
func (v *Verifier) candidates(p *parts) []*provider {
	if len(v.providers) > 1 {
		if i := slices.Index(v.providers, v.named(p)); i >= 0 {
			return v.providers[i : i+1]
		}
	}
	return v.providers
}

// named returns the provider whose issuer is the "iss" of the token, or nil.
// The name is not verified yet; it only selects among the providers of the
// configuration.
func (v *Verifier) named(p *parts) *provider {
	text, _ := p.decodeClaims() // which split has checked
	c, problem := readClaims(text, &v.cfg)
	issuer, ok := strictjson.String(c.iss)
	if problem != "" || !ok {
		return nil
	}
	return v.providerOf(issuer)
}

// ask fetches the keys of the provider that the token names, and returns the
// key that made the signature.
func (v *Verifier) ask(ctx context.Context, p *parts, signature []byte, now time.Time) (*ringKey, error) {
	from := v.named(p)
	if from == nil || !from.algs.has(p.alg) {
		_, _, refused := v.signer(p, signature, now)
		return nil, refused
	}
	if c := from.start(); c != nil {
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, &wsauth.UnavailableError{Err: ctx.Err()}
		}
	}
	key, named, refused := v.signer(p, signature, now)
	if key != nil {
		return key, nil
	}
	from.mu.Lock()
	err := from.lastErr
	from.mu.Unlock()
	if err != nil && !named {
		return nil, &wsauth.UnavailableError{Err: err}
	}
	return nil, refused
}

// parts are the parts of a compact JWS (RFC 7515, section 7.1). All except the
// members of the header are still encoded.
type parts struct {
	signed, claims, signature []byte
	alg                       algorithm
	keyID                     shortText
	rightType                 bool
}

// shortText is a text that needs no allocation.
type shortText struct {
	text [maxKeyID]byte
	len  int
}

func (t *shortText) is(s string) bool { return string(t.text[:t.len]) == s }

func (p *parts) decodeSignature() ([]byte, *wsauth.Error) {
	signature := make([]byte, decodedLen(len(p.signature)))
	if !decode(signature, p.signature) {
		return nil, errMalformed
	}
	return signature, nil
}

func (p *parts) decodeClaims() ([]byte, bool) {
	text := make([]byte, decodedLen(len(p.claims)))
	return text, decode(text, p.claims)
}

// split reads a compact JWS in canonical base64url without padding, with an
// algorithm for which there may be a key, and without a member of the header
// that this package would have to understand. It refuses everything else, and
// makes the cheapest checks first.
func (v *Verifier) split(p *parts, token []byte) *wsauth.Error {
	if len(token) > maxToken {
		return errMalformed
	}
	dot1 := bytes.IndexByte(token, '.')
	dot2 := bytes.LastIndexByte(token, '.')
	if dot1 <= 0 || dot2 <= dot1+1 || dot1 > maxHeader {
		return errMalformed
	}
	header := token[:dot1]
	p.claims, p.signed, p.signature = token[dot1+1:dot2], token[:dot2], token[dot2+1:]
	if n := len(p.signature); n < minSignature || n > maxSignature || !canonical(header) || !canonical(p.signature) {
		return errMalformed
	}
	if refused := p.readHeader(header, v.cfg.Type); refused != nil {
		return refused
	}
	if !v.published.has(p.alg) && !v.ring.Load().algs.has(p.alg) {
		return errAlgorithm
	}
	if n := algorithms[p.alg].signature; n != 0 && decodedLen(len(p.signature)) != n || !canonical(p.claims) {
		return errMalformed
	}
	return nil
}

// commonHeader is {"alg":"HS256","typ":"JWT"}, which many tokens have.
const commonHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// readHeader reads the header (RFC 7515, section 4). It ignores unknown
// members, as the RFC requires, and refuses "crit" and "b64": the first
// requires an extension, the second changes the text that is signed.
func (p *parts) readHeader(header []byte, typ string) *wsauth.Error {
	p.rightType = typ == ""
	if string(header) == commonHeader && typ == "" {
		p.alg = hs256
		return nil
	}
	var room [maxHeader]byte
	text := room[:decodedLen(len(header))]
	if !decode(text, header) {
		return errMalformed
	}
	if text[0] != '{' {
		return errHeader
	}
	var names [maxMembers][]byte
	n := 0
	m := strictjson.Read(text)
	for m.Next() {
		// An escaped name could be one that matters in disguise, and no signer
		// escapes names.
		if n == maxMembers || bytes.IndexByte(m.Name(), '\\') >= 0 || contains(names[:n], m.Name()) {
			return errHeader
		}
		names[n] = m.Name()
		n++
		switch string(m.Name()) {
		case `"alg"`:
			for a := hs256; int(a) < len(algorithms); a++ {
				if string(m.Value()) == algorithms[a].quoted {
					p.alg = a
				}
			}
		case `"kid"`:
			id := m.Value()
			if len(id) > len(p.keyID.text)+2 || id[0] != '"' || bytes.IndexByte(id, '\\') >= 0 {
				return errHeader
			}
			p.keyID.len = copy(p.keyID.text[:], id[1:len(id)-1])
		case `"typ"`:
			p.rightType = p.rightType || isType(m.Value(), typ)
		case `"crit"`, `"b64"`:
			return errHeader
		}
	}
	switch {
	case m.Err != nil:
		return errHeader
	case p.alg == none:
		return errAlgorithm
	}
	return nil
}

func contains(names [][]byte, name []byte) bool {
	for _, seen := range names {
		if bytes.Equal(seen, name) {
			return true
		}
	}
	return false
}

// isType compares media types (RFC 7515, section 4.1.9).
func isType(value []byte, want string) bool {
	got, ok := strictjson.String(value)
	return ok && strings.EqualFold(shortType(got), shortType(want))
}

// shortType returns a media type without "application/" if that leaves no other
// slash.
func shortType(t string) string {
	const prefix = "application/"
	if len(t) > len(prefix) && strings.EqualFold(t[:len(prefix)], prefix) && !strings.Contains(t[len(prefix):], "/") {
		return t[len(prefix):]
	}
	return t
}

// base64url is the value of each character plus one, and 0 for all characters
// outside of the alphabet (RFC 4648, section 5).
var base64url = func() (t [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = byte(i) + 1
	}
	return t
}()

// canonical reports whether b, which is not empty, is what an encoder writes:
// only characters of the alphabet, a possible length, and no unused bits set in
// the last character. Without the check of the last character, four spellings
// of one signature would be valid.
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
