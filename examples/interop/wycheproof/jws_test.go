package wycheproof_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

const (
	signatures = "json_web_signature_test.json"
	keys       = "json_web_key_test.json"
	crypto     = "json_web_crypto_test.json"
)

// mislabelled are the vectors with a wrong label in the file of signatures, and
// the reasons. The test expects the opposite of the label.
var mislabelled = map[int]string{
	346: "labelled valid, but its header says PS384 and its key PS256 (RFC 7517, section 4.4)",
	350: "labelled valid, but its header says PS384 and its key PS256 (RFC 7517, section 4.4)",
	367: "labelled invalid for its padding, but has none: byte for byte the vector 357, which is valid",
	370: "labelled invalid for the padding of its payload, but has none: byte for byte the vector 357, which is valid",
	372: "labelled valid, but holds a '?' in its header: not base64url (RFC 7515, section 2)",
	373: "labelled valid, but holds a '?' in its payload: not base64url (RFC 7515, section 2)",
}

// refused says why jwtauth refuses a vector of each comment in spite of its
// label, beyond the signature.
var refused = map[string]string{
	"emptyPayload": "no claims set is empty",
}

// accepted says why jwtauth accepts the valid token of a group in spite of its
// label.
var accepted = map[string]string{
	"jws_mixedSymmetryKeyset": "each key has one algorithm, so a secret beside a public key confuses nothing",
}

type group struct {
	Comment, Type   string
	Private, Public json.RawMessage
	Tests           []vector
}

type vector struct {
	TcID    int
	Comment string
	JWS     json.RawMessage // a string, or an object if the vector is in the JSON serialization
	JWE     json.RawMessage
	Result  string
}

func (v vector) token() []byte {
	var text string
	if json.Unmarshal(v.JWS, &text) == nil {
		return []byte(text)
	}
	return v.JWS
}

func load(t *testing.T, file string) []group {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ TestGroups []group }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v.TestGroups
}

// jwks returns the keys of a group that verify: the public key, the secret, or
// those of a set.
func (g group) jwks(t *testing.T) []json.RawMessage {
	t.Helper()
	text := g.Public
	if text == nil {
		text = g.Private
	}
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	if set.Keys != nil {
		return set.Keys
	}
	return []json.RawMessage{text}
}

// without returns a key without one of its members.
func without(t *testing.T, key json.RawMessage, member string) []byte {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(key, &members); err != nil {
		t.Fatal(err)
	}
	delete(members, member)
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// algorithmOf returns the algorithm of a group with one key.
func algorithmOf(t *testing.T, g group) string {
	t.Helper()
	var key struct{ Alg string }
	if err := json.Unmarshal(g.jwks(t)[0], &key); err != nil {
		t.Fatal(err)
	}
	return key.Alg
}

func verifier(ring ...jwtauth.Key) (*jwtauth.Verifier, error) {
	return jwtauth.New(jwtauth.Config{Keys: ring, AnySubject: true})
}

// signatureHolds reports whether v accepted the signature. The vectors sign
// texts such as "foo", which are not claims, so jwtauth accepts no vector as a
// token. But it reads the claims only after it has accepted the signature. So a
// refusal for the claims means that the signature was accepted.
func signatureHolds(t *testing.T, v *jwtauth.Verifier, token []byte) bool {
	t.Helper()
	_, err := v.Verify(t.Context(), token, time.Unix(1_800_000_000, 0))
	refused, ok := errors.AsType[*wsauth.Error](err)
	if !ok {
		t.Fatalf("%v, want a *wsauth.Error", err)
	}
	switch refused.Reason {
	case wsauth.ReasonClaims:
		return true
	case wsauth.ReasonMalformed, wsauth.ReasonAlgorithm, wsauth.ReasonHeader, wsauth.ReasonKey, wsauth.ReasonSignature:
		return false
	}
	t.Fatalf("reason %q says nothing about the signature", refused.Reason)
	return false
}

// TestSignatures decides every vector with the key of its group, once with the
// ID of the key and once without. A group whose key New refuses refuses all.
func TestSignatures(t *testing.T) {
	supported := map[string]int{}
	count := 0
	for _, g := range load(t, signatures) {
		key := g.jwks(t)[0]
		named, err := verifier(jwtauth.Key{JWK: key})
		unnamed, err2 := verifier(jwtauth.Key{JWK: without(t, key, "kid")})
		if (err == nil) != (err2 == nil) {
			t.Errorf("%s: the ID makes a difference: %v, %v", g.Comment, err, err2)
		}
		alg := algorithmOf(t, g)
		switch alg {
		case "RS384", "RS512", "PS384", "PS512", "ES521":
			if err == nil {
				t.Errorf("%s: a key for %s was accepted", g.Comment, alg)
			}
			count += len(g.Tests)
			continue
		}
		for _, vec := range g.Tests {
			count++
			supported[alg]++
			t.Run(fmt.Sprint(vec.TcID, " ", alg, " ", vec.Comment), func(t *testing.T) {
				want := vec.Result == "valid"
				if reason, ok := mislabelled[vec.TcID]; ok {
					t.Log(reason)
					want = !want
				}
				if reason, ok := refused[vec.Comment]; ok {
					t.Log(reason)
					want = false
				}
				if err != nil {
					if want {
						t.Errorf("the key was refused: %v", err)
					}
					return
				}
				if got := signatureHolds(t, named, vec.token()); got != want {
					t.Errorf("named key: signature accepted: %v, want %v", got, want)
				}
				if got := signatureHolds(t, unnamed, vec.token()); got != want {
					t.Errorf("key without ID: signature accepted: %v, want %v", got, want)
				}
			})
		}
	}
	if count != 401 {
		t.Errorf("the file holds %d vectors, want 401", count)
	}
	for alg, want := range map[string]int{"HS256": 40, "RS256": 233, "PS256": 50, "ES256": 39, "": 4} {
		if supported[alg] != want {
			t.Errorf("the file holds %d vectors for %q, want %d", supported[alg], alg, want)
		}
	}
}

// Vectors are refused by a verifier that has other keys: all secrets of the
// file. Their public key in the role of a secret (RFC 8725, section 2.1) is
// refused as such, or verifies none of them.
func TestConfusion(t *testing.T) {
	groups := load(t, signatures)
	var secrets []jwtauth.Key
	seen := map[string]bool{}
	for _, g := range groups {
		if key := g.jwks(t)[0]; algorithmOf(t, g) == "HS256" && !seen[string(key)] {
			seen[string(key)] = true
			secrets = append(secrets, jwtauth.Key{JWK: without(t, key, "kid")})
		}
	}
	count, refused := 0, 0
	for _, g := range groups {
		if g.Public == nil {
			continue
		}
		v, err := verifier(append([]jwtauth.Key{{Secret: g.Public}}, secrets...)...)
		if errors.Is(err, wsauth.ConfigMalformed) {
			refused++ // a public key is no secret
			v, err = verifier(secrets...)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, vec := range g.Tests {
			count++
			if signatureHolds(t, v, vec.token()) {
				t.Errorf("%d (%s, %s): signature accepted", vec.TcID, g.Comment, vec.Comment)
			}
		}
	}
	if count < 350 || refused < 10 {
		t.Errorf("%d vectors with a public key, %d keys refused as a secret", count, refused)
	}
}

// TestKeys decides the vectors about keys: what New refuses, verifies nothing.
func TestKeys(t *testing.T) {
	for file, want := range map[string]int{keys: 26, crypto: 49} {
		count := 0
		for _, g := range load(t, file) {
			if g.Tests[0].JWE != nil {
				continue
			}
			var ring []jwtauth.Key
			for _, key := range g.jwks(t) {
				ring = append(ring, jwtauth.Key{JWK: key})
			}
			v, err := verifier(ring...)
			for _, vec := range g.Tests {
				count++
				want := vec.Result == "valid"
				if reason, ok := accepted[g.Comment]; ok {
					t.Log(g.Comment, ": ", reason)
					want = true
				}
				if got := err == nil && signatureHolds(t, v, vec.token()); got != want {
					t.Errorf("%s %d (%s, %s): accepted: %v, want %v (%v)", file, vec.TcID, g.Comment, vec.Comment, got, want, err)
				}
			}
		}
		if count != want {
			t.Errorf("%s holds %d vectors of signatures, want %d", file, count, want)
		}
	}
}

// The reasons of the mislabelled vectors are true. If the file is corrected,
// this test fails.
func TestMislabelled(t *testing.T) {
	token, result, alg := make(map[int]string), make(map[int]string), make(map[int]string)
	for _, g := range load(t, signatures) {
		for _, vec := range g.Tests {
			token[vec.TcID], result[vec.TcID], alg[vec.TcID] = string(vec.token()), vec.Result, algorithmOf(t, g)
		}
	}
	const ps384 = "eyJhbGciOiJQUzM4NCIs" // {"alg":"PS384",
	for _, id := range []int{346, 350} {
		if !strings.HasPrefix(token[id], ps384) || alg[id] != "PS256" || result[id] != "valid" {
			t.Errorf("%d is no longer labelled valid in spite of its algorithm", id)
		}
	}
	for _, id := range []int{367, 370} {
		if token[id] != token[357] || result[357] != "valid" || result[id] != "invalid" {
			t.Errorf("%d is no longer the vector 357 with another label", id)
		}
	}
	for _, id := range []int{372, 373} {
		if !containsOutsider(token[id]) || result[id] != "valid" {
			t.Errorf("%d is no longer labelled valid in spite of its alphabet", id)
		}
	}
}

func containsOutsider(token string) bool {
	for _, c := range token {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return true
		}
	}
	return false
}
