package jwtauth_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// usable checks what New says about a key that a fuzzer made: it is refused
// with a typed error, or it verifies what it signs, with the algorithm that it
// names.
func usable(t *testing.T, key jwtauth.Key) bool {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{key}, AnySubject: true})
	if err != nil {
		problem, ok := errors.AsType[*jwtauth.ConfigError](err)
		if !ok {
			t.Fatalf("untyped error %v", err)
		}
		if _, ok := errors.AsType[wsauth.ConfigReason](problem); !ok {
			t.Fatalf("no reason in %v", err)
		}
		return false
	}
	token, err := v.SignAt(claims, now)
	if errors.Is(err, jwtauth.ErrCannotSign) {
		return true
	}
	if err != nil {
		t.Fatalf("the key was accepted and does not sign: %v", err)
	}
	if _, err := v.Verify(t.Context(), []byte(token), now); err != nil {
		t.Fatalf("the key refuses what it signed: %v", err)
	}
	return true
}

func FuzzJWK(f *testing.F) {
	for _, alg := range asymmetric {
		p := newPair(f, alg, "k1", 0)
		f.Add(text(p.jwk), "")
		f.Add(text(p.with(p.secrets)), alg)
	}
	f.Add([]byte(`{"kty":"oct","alg":"HS256","k":"`+b64(secret)+`"}`), "")
	f.Add([]byte(`{"kty":"oct","alg":"A256GCM","k":"AA","key_ops":["verify"],"use":"enc"}`), "HS256")
	f.Fuzz(func(t *testing.T, data []byte, alg string) {
		if !usable(t, jwtauth.Key{JWK: data, Algorithm: alg}) {
			return
		}
		var plain map[string]any
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatalf("accepted what is no JSON object: %q", data)
		}
		if use, ok := plain["use"]; ok && use != "sig" {
			t.Fatalf("accepted a key for %v: %q", use, data)
		}
		if of, ok := plain["alg"]; ok && alg != "" && of != alg {
			t.Fatalf("accepted a key of %v for %s: %q", of, alg, data)
		}
	})
}

func FuzzPEM(f *testing.F) {
	for _, alg := range asymmetric {
		p := newPair(f, alg, "", 0)
		f.Add(p.public, alg)
		f.Add(p.private, alg)
	}
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"), "")
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"), "ES256")
	f.Fuzz(func(t *testing.T, data []byte, alg string) {
		if usable(t, jwtauth.Key{PEM: data, Algorithm: alg}) && strings.HasPrefix(alg, "HS") {
			t.Fatalf("a key in PEM became a secret: %q", data)
		}
	})
}

// Every usable key of a set is one of the set, is public, and is for one of the
// algorithms.
func FuzzReadSet(f *testing.F) {
	es, rs := newPair(f, jwtauth.ES256, "es", 0), newPair(f, jwtauth.RS256, "rs", 0)
	f.Add(set(es.jwk, rs.jwk))
	f.Add(set(es.with(es.secrets), rs.with(map[string]any{"alg": nil, "key_ops": []string{"verify"}})))
	f.Add([]byte(`{"keys":[{"kty":"oct","alg":"HS256","k":"AAAA"},1,null,[]]}`))
	f.Add([]byte(`{"keys":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := jwtauth.ReadSet(data, io.Discard, jwtauth.RS256, jwtauth.ES256)
		if err != nil {
			if got != nil {
				t.Fatalf("keys and an error: %q %v", got, err)
			}
			return
		}
		var plain struct {
			Keys []struct {
				Kid, Kty string
				D        any
			} `json:"keys"`
		}
		_ = json.Unmarshal(data, &plain) // fails for a set with members that are not keys
		if len(got) > 64 || len(plain.Keys) > 0 && len(got) > len(plain.Keys) {
			t.Fatalf("%d keys of %q", len(got), data)
		}
		for _, key := range got {
			if !strings.HasSuffix(key, " RS256") && !strings.HasSuffix(key, " ES256") {
				t.Fatalf("a key %q of %q", key, data)
			}
		}
	})
}

func FuzzReadDiscovery(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://id.example","jwks_uri":"https://keys.example/a"}`))
	f.Add([]byte(`{"issuer":"https://id.example","issuer":"","jwks_uri":"http://[::1]/"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := jwtauth.ReadDiscovery(data)
		if err != nil {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			t.Fatalf("the address %q of %q", got, data)
		}
	})
}

// No header opens a token that its key did not sign, whatever key and
// algorithm the header names.
func FuzzHeader(f *testing.F) {
	es, ed := newPair(f, jwtauth.ES256, "es", 0), newPair(f, jwtauth.EdDSA, "ed", 0)
	v, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{JWK: text(es.jwk)}, {JWK: text(ed.jwk)}, {Secret: secret}}, AnySubject: true})
	if err != nil {
		f.Fatal(err)
	}
	valid := tokenOf(f, es, issuer)
	_, rest, _ := strings.Cut(string(valid), ".")
	for _, header := range []string{`{"alg":"ES256","typ":"JWT","kid":"es"}`, `{"alg":"none"}`, `{"alg":"EdDSA","kid":"es"}`, `{"alg":"ES256","jwk":{}}`, common} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token := b64([]byte(header)) + "." + rest
		_, err := v.Verify(t.Context(), []byte(token), now)
		if (err == nil) != (token == string(valid)) {
			t.Fatalf("%s: %v", header, err)
		}
		if err != nil && !beforeSignature(reasonOf(t, err)) && reasonOf(t, err) != wsauth.ReasonSignature {
			t.Fatalf("%s: %v", header, err)
		}
	})
}
