package wycheproof_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// mislabelled are the HS256 vectors with a wrong label in the file, and the
// reasons. The test expects the opposite of the label.
var mislabelled = map[int]string{
	367: "labelled invalid for its padding, but has none: byte for byte the vector 357, which is valid",
	370: "labelled invalid for the padding of its payload, but has none: byte for byte the vector 357, which is valid",
	372: "labelled valid, but holds a '?' in its header: not base64url (RFC 7515, section 2)",
	373: "labelled valid, but holds a '?' in its payload: not base64url (RFC 7515, section 2)",
}

type vectors struct {
	TestGroups []group
}

type group struct {
	Comment string
	Private struct{ Alg, Kid, Kty, K string }
	Public  json.RawMessage
	Tests   []vector
}

type vector struct {
	TcID    int
	Comment string
	JWS     json.RawMessage // a string, or an object if the vector is in the JSON serialization
	Result  string
}

func (v vector) token() []byte {
	var text string
	if json.Unmarshal(v.JWS, &text) == nil {
		return []byte(text)
	}
	return v.JWS
}

func (g group) hmac() bool { return g.Private.Kty == "oct" && g.Private.Alg == "HS256" }

func load(t *testing.T) vectors {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, "json_web_signature_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func secretOf(t *testing.T, g group) []byte {
	t.Helper()
	secret, err := base64.RawURLEncoding.DecodeString(g.Private.K)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func verifier(t *testing.T, keys ...jwtauth.Key) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: keys, Devices: []string{"pi-1"}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// signatureHolds reports whether v accepted the signature. The vectors sign
// texts such as "foo", which are not claims, so wsauth accepts no vector as a
// token. But wsauth reads the claims only after it has accepted the signature,
// and only then has an error the ID of a key. So a refusal for the claims, with
// a key ID, means that the signature was accepted.
func signatureHolds(t *testing.T, v *jwtauth.Verifier, token []byte, kid string) bool {
	t.Helper()
	_, err := v.VerifyAt(token, time.Unix(1_800_000_000, 0))
	refused, ok := errors.AsType[*wsauth.Error](err)
	if !ok {
		t.Fatalf("%v, want a *wsauth.Error", err)
	}
	switch refused.Reason {
	case wsauth.ReasonClaims:
		if refused.KeyID != kid {
			t.Errorf("refused for its claims, by key %q, want %q", refused.KeyID, kid)
		}
		return true
	case wsauth.ReasonMalformed, wsauth.ReasonAlgorithm, wsauth.ReasonHeader, wsauth.ReasonKey, wsauth.ReasonSignature:
		return false
	}
	t.Fatalf("reason %q says nothing about the signature", refused.Reason)
	return false
}

// The results of the HS256 vectors match their labels, whether the key has the
// ID of the header or no ID.
func TestHS256(t *testing.T) {
	count := 0
	for _, g := range load(t).TestGroups {
		if !g.hmac() {
			continue
		}
		secret := secretOf(t, g)
		named := verifier(t, jwtauth.Key{ID: g.Private.Kid, Secret: secret})
		unnamed := verifier(t, jwtauth.Key{Secret: secret})
		for _, vec := range g.Tests {
			count++
			t.Run(fmt.Sprint(vec.TcID, " ", vec.Comment), func(t *testing.T) {
				want := vec.Result == "valid"
				if reason, ok := mislabelled[vec.TcID]; ok {
					t.Log(reason)
					want = !want
				}
				if got := signatureHolds(t, named, vec.token(), g.Private.Kid); got != want {
					t.Errorf("named key: signature accepted: %v, want %v", got, want)
				}
				if got := signatureHolds(t, unnamed, vec.token(), ""); got != want {
					t.Errorf("key without ID: signature accepted: %v, want %v", got, want)
				}
			})
		}
	}
	if count != 40 {
		t.Errorf("the file holds %d HS256 vectors, want 40", count)
	}
}

// Vectors with other algorithms than HS256 are refused, even those with the
// label valid. The verifier has all secrets of the file and, as its first key,
// the vector's public key in the role of a secret (RFC 8725, section 2.1).
func TestOtherAlgorithms(t *testing.T) {
	groups := load(t).TestGroups
	var secrets []jwtauth.Key
	seen := make(map[string]bool)
	for _, g := range groups {
		if g.hmac() && !seen[g.Private.K] {
			seen[g.Private.K] = true
			secrets = append(secrets, jwtauth.Key{Secret: secretOf(t, g)})
		}
	}
	count := 0
	for _, g := range groups {
		if g.hmac() {
			continue
		}
		keys := secrets
		if len(g.Public) > 0 {
			keys = append([]jwtauth.Key{{Secret: g.Public}}, secrets...)
		}
		v := verifier(t, keys...)
		for _, vec := range g.Tests {
			count++
			if signatureHolds(t, v, vec.token(), "") {
				t.Errorf("%d (%s, %s): signature accepted", vec.TcID, g.Comment, vec.Comment)
			}
		}
	}
	if count != 361 {
		t.Errorf("the file holds %d vectors that are not HS256, want 361", count)
	}
}

// The reasons of the four mislabelled vectors are true. If the file is
// corrected, this test fails.
func TestMislabelled(t *testing.T) {
	token, result := make(map[int]string), make(map[int]string)
	for _, g := range load(t).TestGroups {
		for _, vec := range g.Tests {
			token[vec.TcID], result[vec.TcID] = string(vec.token()), vec.Result
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
