package jwtauth_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// A real provider, by https: discovery, its key set on another host, a token.
func TestDiscovery(t *testing.T) {
	k := newPair(t, jwtauth.RS256, "k1", 0)
	keys := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(set(k.jwk))
	}))
	defer keys.Close()
	for name, path := range map[string]string{"no path": "", "a path": "/realms/one", "a slash at the end": "/realms/one/"} {
		var mux http.ServeMux
		id := httptest.NewTLSServer(&mux)
		defer id.Close()
		iss := id.URL + path
		mux.HandleFunc("GET "+strings.TrimSuffix(path, "/")+"/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(text(map[string]any{"issuer": iss, "jwks_uri": keys.URL + "/set", "response_types_supported": []string{"code"}}))
		})
		v, err := jwtauth.New(jwtauth.Config{
			Providers: []jwtauth.Provider{{Issuer: iss}}, AnySubject: true, Transport: keys.Client().Transport,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := outcome(t, v, tokenOf(t, k, iss)); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Answers that are refused, and never taken for an empty set.
func TestRefusedAnswers(t *testing.T) {
	good := set(newPair(t, jwtauth.ES256, "k1", 0).jwk)
	var secondHost atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secondHost.Add(1)
		_, _ = w.Write(good)
	}))
	defer other.Close()
	many := make([]map[string]any, 65)
	for i := range many {
		many[i] = newPair(t, jwtauth.EdDSA, fmt.Sprint(i), 0).jwk
	}
	for name, answer := range map[string]http.HandlerFunc{
		"a redirect to another host": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"a redirect to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/keys2", http.StatusPermanentRedirect)
		},
		"not found": http.NotFound,
		"a failure with a set": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write(good)
		},
		"too long": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(append(bytes.Clone(good), bytes.Repeat([]byte(" "), 512<<10)...))
		},
		"too long when decompressed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(append(bytes.Clone(good), bytes.Repeat([]byte(" "), 1<<20)...))
			_ = z.Close()
		},
		"cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)+1))
			_, _ = w.Write(good)
		},
		"a page":            func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"empty":             func(w http.ResponseWriter, r *http.Request) {},
		"no keys":           func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{}`)) },
		"keys null":         func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"keys":null}`)) },
		"keys twice":        func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"keys":[],"keys":[]}`)) },
		"more than 64 keys": func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(set(many...)) },
		"no answer":         func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(answer)
			defer srv.Close()
			v, err := jwtauth.New(jwtauth.Config{
				Providers: []jwtauth.Provider{{Issuer: issuer, JWKS: srv.URL}}, AnySubject: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "jwtauth: key set of "+issuer) {
				t.Errorf("Refresh: %v", err)
			}
		})
	}
	if secondHost.Load() != 0 {
		t.Error("a redirect led to another host")
	}
}

func TestReadDiscovery(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"good", `{"issuer":"https://id.example","jwks_uri":"https://keys.example/a"}`, "https://keys.example/a"},
		{"another issuer, which could vouch for this one", `{"issuer":"https://evil.example","jwks_uri":"https://keys.example/a"}`, ""},
		{"the issuer with a slash", `{"issuer":"https://id.example/","jwks_uri":"https://keys.example/a"}`, ""},
		{"the issuer in capitals", `{"issuer":"https://ID.example","jwks_uri":"https://keys.example/a"}`, ""},
		{"no issuer", `{"jwks_uri":"https://keys.example/a"}`, ""},
		{"issuer twice", `{"issuer":"https://evil.example","issuer":"https://id.example","jwks_uri":"https://keys.example/a"}`, ""},
		{"issuer a list", `{"issuer":["https://id.example"],"jwks_uri":"https://keys.example/a"}`, ""},
		{"no jwks_uri", `{"issuer":"https://id.example"}`, ""},
		{"jwks_uri by http", `{"issuer":"https://id.example","jwks_uri":"http://keys.example/a"}`, ""},
		{"jwks_uri on this machine", `{"issuer":"https://id.example","jwks_uri":"http://127.0.0.1/a"}`, ""},
		{"jwks_uri a file", `{"issuer":"https://id.example","jwks_uri":"file:///etc/passwd"}`, ""},
		{"jwks_uri relative", `{"issuer":"https://id.example","jwks_uri":"/keys"}`, ""},
		{"jwks_uri with a password", `{"issuer":"https://id.example","jwks_uri":"https://a:b@keys.example/"}`, ""},
		{"not JSON", `<html>`, ""},
	} {
		got, err := jwtauth.ReadDiscovery([]byte(row.text))
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s: %q, %v", row.name, got, err)
		}
	}
}

// A set gives the keys that fit, and a record for each other.
func TestReadSet(t *testing.T) {
	es, rs, ed := newPair(t, jwtauth.ES256, "es", 0), newPair(t, jwtauth.RS256, "rs", 0), newPair(t, jwtauth.EdDSA, "ed", 0)
	type m = map[string]any
	oct := m{"kty": "oct", "alg": "HS256", "kid": "oct", "k": b64(secret)}
	for _, row := range []struct {
		name       string
		set        []byte
		algorithms []string
		want       []string
		logged     string
	}{
		{"all fit", set(es.jwk, rs.jwk, ed.jwk), nil, []string{"es ES256", "rs RS256", "ed EdDSA"}, ""},
		{"none", []byte(`{"keys":[]}`), nil, nil, ""},
		{"unknown members", []byte(`{"keys":[],"x":[{}]}`), nil, nil, ""},
		{"a secret in public", set(oct, ed.jwk), nil, []string{"ed EdDSA"}, "kid=oct"},
		{"a private key in public", set(es.with(es.secrets), ed.jwk), nil, []string{"ed EdDSA"}, "private"},
		{"a key for encryption", set(rs.with(m{"use": "enc"}), ed.jwk), nil, []string{"ed EdDSA"}, `\"use\"`},
		{"a key of an unknown type", set(m{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-65"}, ed.jwk), nil, []string{"ed EdDSA"}, "kid=pq"},
		{"not a key", []byte(`{"keys":[1,` + string(text(ed.jwk)) + `]}`), nil, []string{"ed EdDSA"}, "index=0"},
		{"the same ID and algorithm", set(es.jwk, newPair(t, jwtauth.ES256, "es", 0).jwk), nil, []string{"es ES256"}, "another key"},
		{"the same ID, another algorithm", set(es.jwk, ed.with(m{"kid": "es"})), nil, []string{"es ES256", "es EdDSA"}, ""},
		{"one key for two algorithms", set(rs.jwk, rs.with(m{"kid": "ps", "alg": "PS256"})), nil, []string{"rs RS256"}, "the same key"},
		{"PS256, if the key says so", set(rs.with(m{"alg": "PS256"})), nil, []string{"rs PS256"}, ""},
		{"RSA without alg is RS256", set(rs.with(m{"alg": nil})), nil, []string{"rs RS256"}, ""},
		{"RSA without alg is what is allowed", set(rs.with(m{"alg": nil})), []string{"PS256", "ES256"}, []string{"rs PS256"}, ""},
		{"RSA without alg is ambiguous", set(rs.with(m{"alg": nil})), []string{"RS256", "PS256"}, nil, "algorithm"},
		{"RS256 for PS256", set(rs.jwk), []string{"PS256"}, nil, "not allowed"},
		{"EC and OKP without alg", set(es.with(m{"alg": nil}), ed.with(m{"alg": nil})), nil, []string{"es ES256", "ed EdDSA"}, ""},
		{"EC without alg, not allowed", set(es.with(m{"alg": nil})), []string{"ES384"}, nil, "kid=es"},
		{"a long kid", set(es.with(m{"kid": strings.Repeat("x", 129)})), nil, nil, "kid is too long"},
		{"kid of a thumbprint with a slash", set(es.with(m{"kid": "a/b+c="})), nil, []string{"a/b+c= ES256"}, ""},
	} {
		var log bytes.Buffer
		got, err := jwtauth.ReadSet(row.set, &log, row.algorithms...)
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: %q %v, want %q", row.name, got, err, row.want)
		}
		if (log.Len() > 0) != (row.logged != "") || !strings.Contains(log.String(), row.logged) {
			t.Errorf("%s: logged %s", row.name, log.String())
		}
		if strings.Contains(log.String(), b64(secret)) {
			t.Errorf("%s: the log holds a secret", row.name)
		}
	}
}

func TestProviderConfig(t *testing.T) {
	type p = jwtauth.Provider
	for _, row := range []struct {
		name     string
		provider p
		field    string
		want     wsauth.ConfigReason
	}{
		{"https", p{Issuer: issuer}, "", ""},
		{"a key set, and an issuer that is a name", p{Issuer: "login", JWKS: "https://id.example/keys?v=1"}, "", ""},
		{"http on this machine", p{Issuer: "http://localhost:8080"}, "", ""},
		{"http on this machine, IPv6", p{Issuer: "http://[::1]:8080/x"}, "", ""},
		{"http, dangerously", p{Issuer: "http://id.example", InsecureHTTP: true}, "", ""},
		{"http", p{Issuer: "http://id.example"}, "Issuer", wsauth.ConfigMalformed},
		{"http for the key set", p{Issuer: issuer, JWKS: "http://id.example/keys"}, "JWKS", wsauth.ConfigMalformed},
		{"a host that begins like this machine", p{Issuer: "http://localhost.example"}, "Issuer", wsauth.ConfigMalformed},
		{"a host that begins like its address", p{Issuer: "http://127.0.0.1.example"}, "Issuer", wsauth.ConfigMalformed},
		{"nothing", p{}, "Issuer", wsauth.ConfigMissing},
		{"a key set of any issuer", p{JWKS: "https://id.example/keys"}, "Issuer", wsauth.ConfigMissing},
		{"a name without a key set", p{Issuer: "login"}, "Issuer", wsauth.ConfigMalformed},
		{"a host", p{Issuer: "id.example"}, "Issuer", wsauth.ConfigMalformed},
		{"a password", p{Issuer: "https://a:b@id.example"}, "Issuer", wsauth.ConfigMalformed},
		{"a query", p{Issuer: issuer + "?tenant=1"}, "Issuer", wsauth.ConfigMalformed},
		{"a fragment", p{Issuer: issuer + "#x"}, "Issuer", wsauth.ConfigMalformed},
		{"a line break", p{Issuer: issuer + "\n"}, "Issuer", wsauth.ConfigMalformed},
		{"another scheme, dangerously", p{Issuer: "ftp://id.example", InsecureHTTP: true}, "Issuer", wsauth.ConfigMalformed},
		{"no algorithm", p{Issuer: issuer, Algorithms: []string{}}, "Algorithms", wsauth.ConfigMissing},
		{"HMAC with a public key", p{Issuer: issuer, Algorithms: []string{"HS256"}}, "Algorithms[0]", wsauth.ConfigUnknown},
		{"an unknown algorithm", p{Issuer: issuer, Algorithms: []string{"ES256", "RS1"}}, "Algorithms[1]", wsauth.ConfigUnknown},
		{"an algorithm twice", p{Issuer: issuer, Algorithms: []string{"ES256", "ES256"}}, "Algorithms[1]", wsauth.ConfigDuplicate},
	} {
		_, err := jwtauth.New(jwtauth.Config{Providers: []p{row.provider}, AnySubject: true})
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		problem, ok := errors.AsType[*jwtauth.ConfigError](err)
		if !ok || problem.Field != "Config.Providers[0]."+row.field || !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %s %s", row.name, err, row.field, row.want)
		}
	}
}
