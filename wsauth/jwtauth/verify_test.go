package jwtauth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

func TestVerify(t *testing.T) {
	v := newHS256(t, nil)
	valid := forge.HS256(common, good(""), secret)
	header, rest, _ := strings.Cut(valid, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", signature[42])
	respelled := signature[:42] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last+1])
	with := func(extra string) string { return forge.HS256(common, good(extra), secret) }
	head := func(h string) string { return forge.HS256(h, good(""), secret) }
	exp := func(exp string) string { return forge.HS256(common, `{"device":"pi-1","exp":`+exp+`}`, secret) }
	at := now.Unix()

	for _, row := range []struct {
		name, token string
		want        wsauth.Reason
	}{
		{"the plain case", valid, ""},
		{"unknown claims are ignored", with(`,"name":"\u00e9","nested":{"a":[1,{"b":null}]}`), ""},
		{"unknown header members must be ignored", head(`{"alg":"HS256","cty":"x","jku":"https://evil"}`), ""},
		{"white space in the JSON", head(" {\n\"alg\" : \"HS256\"}"), wsauth.ReasonHeader},

		// The form of the token.
		{"empty", "", wsauth.ReasonMalformed},
		{"dots only", "..", wsauth.ReasonMalformed},
		{"two parts", header + "." + claims, wsauth.ReasonMalformed},
		{"four parts", valid + "." + signature, wsauth.ReasonMalformed},
		{"five parts, a JWE", "a.b.c.d.e", wsauth.ReasonMalformed},
		{"no signature", header + "." + claims + ".", wsauth.ReasonMalformed},
		{"no claims", header + ".." + signature, wsauth.ReasonMalformed},
		{"padded signature, which jwx takes", valid + "=", wsauth.ReasonMalformed},
		{"a line break in the signature, which jwx takes", valid[:len(valid)-2] + "\n" + valid[len(valid)-2:], wsauth.ReasonMalformed},
		{"another spelling of the same signature", header + "." + claims + "." + respelled, wsauth.ReasonMalformed},
		{"standard base64", header + "." + claims + "." + "+" + signature[1:], wsauth.ReasonMalformed},
		{"a space before", " " + valid, wsauth.ReasonMalformed},
		{"a line break after", valid + "\n", wsauth.ReasonMalformed},
		{"Bearer before", "Bearer " + valid, wsauth.ReasonMalformed},
		{"JSON serialization, which jwx takes", `{"payload":"` + claims + `","protected":"` + header + `","signature":"` + signature + `"}`, wsauth.ReasonMalformed},
		{"longer than 8 KiB", with(`,"x":"` + strings.Repeat("x", 8192) + `"`), wsauth.ReasonMalformed},
		{"a header longer than any", head(`{"alg":"HS256","x":"` + strings.Repeat("x", 1200) + `"}`), wsauth.ReasonMalformed},
		{"not ASCII", "\u00e9" + valid, wsauth.ReasonMalformed},
		{"NUL", header + "." + claims[1:] + "\x00." + signature, wsauth.ReasonMalformed},

		// The header.
		{"none", head(`{"alg":"none"}`), wsauth.ReasonAlgorithm},
		{"None", head(`{"alg":"None"}`), wsauth.ReasonAlgorithm},
		{"HS512 over an HS256 MAC, which jwx takes", head(`{"alg":"HS512"}`), wsauth.ReasonAlgorithm},
		{"RS256", head(`{"alg":"RS256"}`), wsauth.ReasonAlgorithm},
		{"hs256 in small letters", head(`{"alg":"hs256"}`), wsauth.ReasonAlgorithm},
		{"no algorithm, which jwx takes", head(`{"typ":"JWT"}`), wsauth.ReasonAlgorithm},
		{"algorithm null", head(`{"alg":null}`), wsauth.ReasonAlgorithm},
		{"algorithm in a list", head(`{"alg":["HS256"]}`), wsauth.ReasonAlgorithm},
		{"two algorithms", head(`{"alg":"none","alg":"HS256"}`), wsauth.ReasonHeader},
		{"the algorithm's name in escapes", head(`{"\u0061lg":"HS256"}`), wsauth.ReasonHeader},
		{"unknown crit, which jwx takes", head(`{"alg":"HS256","crit":["x"],"x":1}`), wsauth.ReasonHeader},
		{"b64, which changes what is signed", head(`{"alg":"HS256","b64":false}`), wsauth.ReasonHeader},
		{"not an object", head(`["HS256"]`), wsauth.ReasonHeader},
		{"trailing junk in the header", head(common + "x"), wsauth.ReasonHeader},
		{"deep", head(`{"alg":"HS256","x":` + deep(40) + `}`), wsauth.ReasonHeader},
		{"kid is a number", head(`{"alg":"HS256","kid":1}`), wsauth.ReasonHeader},

		// The signature.
		{"another key", forge.HS256(common, good(""), other), wsauth.ReasonSignature},
		{"other claims", header + "." + base64.RawURLEncoding.EncodeToString([]byte(good(`,"x":1`))) + "." + signature, wsauth.ReasonSignature},
		{"the empty key", forge.HS256(common, good(""), nil), wsauth.ReasonSignature},
		{"zeros", header + "." + claims + "." + strings.Repeat("A", 43), wsauth.ReasonSignature},

		// The claims.
		{"no claims set", forge.HS256(common, "x", secret), wsauth.ReasonClaims},
		{"a list", forge.HS256(common, "["+good("")+"]", secret), wsauth.ReasonClaims},
		{"trailing junk, which jwx takes", forge.HS256(common, good("")+"x", secret), wsauth.ReasonClaims},
		{"not UTF-8", forge.HS256(common, good(",\"x\":\"\xff\""), secret), wsauth.ReasonClaims},
		{"deep", with(`,"x":` + deep(40)), wsauth.ReasonClaims},
		{"two devices, of which jwx takes the last", with(`,"device":"pi-1"`), wsauth.ReasonClaims},
		{"two devices, one in escapes", with(`,"\u0064evice":"pi-1"`), wsauth.ReasonClaims},
		{"two of an unknown name", with(`,"x":1,"x":1`), wsauth.ReasonClaims},
		{"too many members", with(strings.Join(members(70), "")), wsauth.ReasonClaims},
		{"no exp", forge.HS256(common, `{"device":"pi-1"}`, secret), wsauth.ReasonClaims},
		{"exp 0, which jwx takes for never", exp("0"), wsauth.ReasonClaims},
		{"exp negative", exp("-1"), wsauth.ReasonClaims},
		{"exp null", exp("null"), wsauth.ReasonClaims},
		{"exp as text", exp(`"` + fmt.Sprint(at+9) + `"`), wsauth.ReasonClaims},
		{"exp as RFC 3339, which jwx takes", exp(`"2999-01-01T00:00:00Z"`), wsauth.ReasonClaims},
		{"exp with a fraction", exp(fmt.Sprint(at+9) + ".5"), wsauth.ReasonClaims},
		{"exp with an exponent", exp("1e12"), wsauth.ReasonClaims},
		{"exp beyond the year 9999", exp("253402300800"), wsauth.ReasonClaims},
		{"exp beyond int64", exp("9223372036854775808"), wsauth.ReasonClaims},
		{"exp now", exp(fmt.Sprint(at)), wsauth.ReasonExpired},
		{"exp in a second", exp(fmt.Sprint(at + 1)), ""},
		{"nbf now", with(fmt.Sprintf(`,"nbf":%d`, at)), ""},
		{"nbf in a second", with(fmt.Sprintf(`,"nbf":%d`, at+1)), wsauth.ReasonNotYetValid},
		{"nbf as text", with(`,"nbf":"1"`), wsauth.ReasonClaims},
		{"iat as text", with(`,"iat":"1"`), wsauth.ReasonClaims},
		{"no device", forge.HS256(common, fmt.Sprintf(`{"exp":%d}`, at+9), secret), wsauth.ReasonClaims},
		{"device a number", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":1}`, at+9), secret), wsauth.ReasonClaims},
		{"device a list", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":["pi-1"]}`, at+9), secret), wsauth.ReasonClaims},
		{"device null", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":null}`, at+9), secret), wsauth.ReasonClaims},
		{"device unknown", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":"pi-3"}`, at+9), secret), wsauth.ReasonSubject},
		{"device in capitals", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":"PI-1"}`, at+9), secret), wsauth.ReasonSubject},
		{"device with half a surrogate pair", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"device":"\ud800"}`, at+9), secret), wsauth.ReasonClaims},
		{"the claim is Subject", forge.HS256(common, fmt.Sprintf(`{"exp":%d,"Subject":"pi-1"}`, at+9), secret), wsauth.ReasonClaims},
		{"an audience", with(`,"aud":"somebody"`), wsauth.ReasonAudience},
		{"no audience in the list", with(`,"aud":[]`), wsauth.ReasonAudience},
		{"an audience without a name", with(`,"aud":""`), wsauth.ReasonAudience},
		{"one of the audiences without a name", with(`,"aud":["somebody",""]`), wsauth.ReasonAudience},
		{"aud a number", with(`,"aud":1`), wsauth.ReasonClaims},
		{"any issuer", with(`,"iss":"anybody"`), ""},
		{"jti too long", with(`,"jti":"` + strings.Repeat("x", 256) + `"`), wsauth.ReasonClaims},
		{"jti with a line break, which could forge a log line", with(`,"jti":"a\nb"`), wsauth.ReasonClaims},
		{"unknown role", with(`,"role":"god"`), wsauth.ReasonRole},
		{"scope a list", with(`,"scope":["publish"]`), ""},
		{"scope a number", with(`,"scope":1`), wsauth.ReasonClaims},
	} {
		before := jwtauth.Verifications.Load()
		id, err := v.Verify(t.Context(), []byte(row.token), now)
		if got := reasonOf(t, err); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		if calls := jwtauth.Verifications.Load() - before; beforeSignature(row.want) != (calls == 0) {
			t.Errorf("%s: jwx was called %d times", row.name, calls)
		}
		if err == nil && (id.Subject != "pi-1" || !id.Can(wsauth.Publish) || id.Can(wsauth.Admin)) {
			t.Errorf("%s: %+v", row.name, id)
		}
	}
}

func members(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`,"x%d":0`, i)
	}
	return list
}

func TestVerifyConfigured(t *testing.T) {
	v := newHS256(t, func(c *jwtauth.Config) {
		c.Issuers, c.Audience, c.Leeway = []string{"me"}, "relay", time.Minute
	})
	at := now.Unix()
	for _, row := range []struct {
		name, claims string
		want         wsauth.Reason
	}{
		{"one audience", good(`,"iss":"me","aud":"relay"`), ""},
		{"one of several", good(`,"iss":"me","aud":["x","relay"]`), ""},
		{"audience missing", good(`,"iss":"me"`), wsauth.ReasonAudience},
		{"audience another", good(`,"iss":"me","aud":["relay2"]`), wsauth.ReasonAudience},
		{"audiences not all text", good(`,"iss":"me","aud":["relay",1]`), wsauth.ReasonClaims},
		{"issuer missing", good(`,"aud":"relay"`), wsauth.ReasonIssuer},
		{"issuer another", good(`,"iss":"you","aud":"relay"`), wsauth.ReasonIssuer},
		{"expired within the leeway", fmt.Sprintf(`{"device":"pi-1","iss":"me","aud":"relay","exp":%d}`, at-59), ""},
		{"expired beyond it", fmt.Sprintf(`{"device":"pi-1","iss":"me","aud":"relay","exp":%d}`, at-60), wsauth.ReasonExpired},
		{"early within the leeway", good(fmt.Sprintf(`,"iss":"me","aud":"relay","nbf":%d`, at+60)), ""},
		{"early beyond it", good(fmt.Sprintf(`,"iss":"me","aud":"relay","nbf":%d`, at+61)), wsauth.ReasonNotYetValid},
	} {
		_, err := v.Verify(t.Context(), []byte(forge.HS256(common, row.claims, secret)), now)
		if got := reasonOf(t, err); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestPermissions(t *testing.T) {
	v := newHS256(t, nil)
	for _, row := range []struct {
		extra          string
		publish, admin bool
	}{
		{``, true, false},
		{`,"role":"admin"`, true, true},
		{`,"role":"admin","scope":"admin"`, false, true},
		{`,"role":"publisher","scope":"publish admin"`, true, false}, // a scope never adds a permission
		{`,"scope":""`, false, false},
	} {
		id, err := v.Verify(t.Context(), []byte(forge.HS256(common, good(row.extra), secret)), now)
		if err != nil || id.Can(wsauth.Publish) != row.publish || id.Can(wsauth.Admin) != row.admin {
			t.Errorf("%s: %+v %v", row.extra, id, err)
		}
	}
}

// An Error names a device only if the signature is valid.
func TestRefusalNamesOnlyWhatWasSigned(t *testing.T) {
	v := newHS256(t, nil)
	claims := fmt.Sprintf(`{"device":"pi-1","jti":"t1","exp":%d}`, now.Unix()-1)
	_, err := v.Verify(t.Context(), []byte(forge.HS256(common, claims, secret)), now)
	if e := err.(*wsauth.Error); e.Subject != "pi-1" || e.TokenID != "t1" {
		t.Errorf("%+v", e)
	}
	_, err = v.Verify(t.Context(), []byte(forge.HS256(common, claims, other)), now)
	if e := err.(*wsauth.Error); *e != (wsauth.Error{Reason: wsauth.ReasonSignature}) {
		t.Errorf("%+v", e)
	}
}

// Text without the form of a token costs no allocation.
func TestGarbageAllocatesNothing(t *testing.T) {
	es := newPair(t, jwtauth.ES256, "k1", 0)
	for what, v := range map[string]*jwtauth.Verifier{
		"HS256": newHS256(t, nil),
		"a public key and a provider": newSub(t, func(c *jwtauth.Config) {
			c.Keys, c.Providers = []jwtauth.Key{{PEM: es.public}}, []jwtauth.Provider{{Issuer: issuer}}
		}),
	} {
		for name, token := range garbage {
			before := jwtauth.Verifications.Load()
			if n := testing.AllocsPerRun(100, func() { _, _ = v.Verify(t.Context(), token, now) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", what, name, n)
			}
			if jwtauth.Verifications.Load() != before {
				t.Errorf("%s, %s: a signature was checked", what, name)
			}
		}
	}
}

var garbage = map[string][]byte{
	"letters":      []byte(strings.Repeat("x", 200)),
	"dots":         []byte(strings.Repeat(".", 4096)),
	"huge":         []byte(strings.Repeat("x", 64<<10)),
	"no signature": []byte("eyJhbGciOiJub25lIn0.eyJkZXZpY2UiOiJwaS0xIn0."),
	"alg none":     []byte(forge.HS256(`{"alg":"none"}`, good(""), secret)),
	"alg HS512":    []byte(forge.HS256(`{"alg":"HS512","typ":"JWT"}`, good(""), secret)),
	"bad alphabet": []byte(strings.Repeat("+", 100) + "." + strings.Repeat("A", 3000) + "." + strings.Repeat("A", 43)),
}

// Whether a token is a guess does not depend on what is written in it, only on
// its signature.
func TestForgeriesAreGuesses(t *testing.T) {
	v := newHS256(t, func(c *jwtauth.Config) { c.Issuers, c.Audience = []string{"i"}, "a" })
	for _, claims := range []string{
		good(""), good(`,"iss":"i","aud":"a","role":"none"`), `{"device":"pi-1","exp":1}`, `{"device":"nobody","exp":9999999999}`, `{}`, `x`,
		good(`,"iss":"i"`), good(`,"aud":"a"`), good(`,"iss":"i","aud":"a","nbf":9999999999`),
	} {
		for key, guess := range map[string]bool{string(other): true, string(secret): false} {
			_, err := v.Verify(t.Context(), []byte(forge.HS256(common, claims, []byte(key))), now)
			if got := reasonOf(t, err); got.IsGuess() != guess {
				t.Errorf("%s, signed by a stranger: %t: %q", claims, guess, got)
			}
		}
	}
}

// A token can have any permission and no other, such as one that a monitoring
// system needs.
func TestOwnRoles(t *testing.T) {
	words := []string{"metrics", "sessions", "audit", "blocks", "history:read"}
	roles := map[string][]string{"publisher": {wsauth.Publish}, "operator": words}
	for _, w := range words {
		roles[w] = []string{w}
	}
	v := newHS256(t, func(c *jwtauth.Config) { c.Roles = roles })
	roles["metrics"][0] = wsauth.Admin // belongs to the caller
	roles["publisher"] = words
	for _, row := range []struct {
		role  string
		scope []string
		want  []string
	}{
		{"", nil, []string{wsauth.Publish}},
		{"metrics", nil, []string{"metrics"}},
		{"audit", nil, []string{"audit"}},
		{"operator", nil, words},
		{"operator", []string{"audit", "history:read", "none"}, []string{"audit", "history:read"}},
		{"metrics", []string{"audit"}, nil},
	} {
		token, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1", Role: row.role, Scope: row.scope, ExpiresAt: now.Add(time.Hour)}, now)
		if err != nil {
			t.Fatal(err)
		}
		id, err := v.Verify(t.Context(), []byte(token), now)
		if err != nil || !slices.Equal(id.Permissions, row.want) || id.Can(wsauth.Admin) {
			t.Errorf("%q %q: %q, %v", row.role, row.scope, id.Permissions, err)
		}
	}
	if _, err := v.SignAt(wsauth.ClaimSet{Subject: "pi-1", Role: "admin", ExpiresAt: now.Add(time.Hour)}, now); reasonOf(t, err) != wsauth.ReasonRole {
		t.Error("a role that is not in Roles:", err)
	}
	for _, permission := range []string{"", " ", "a b", "a ", "\ta"} {
		_, err := jwtauth.New(jwtauth.Config{
			Keys: []jwtauth.Key{{Secret: secret}}, Subjects: []string{"pi-1"},
			Roles: map[string][]string{"publisher": {wsauth.Publish, permission}},
		})
		if !errors.Is(err, wsauth.ConfigMalformed) || !strings.Contains(err.Error(), "Config.Roles") {
			t.Errorf("%q: %v", permission, err)
		}
	}
}
