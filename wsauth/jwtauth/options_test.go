package jwtauth_test

import (
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

// newSub returns a verifier of "sub" without roles.
func newSub(t testing.TB, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	cfg := jwtauth.Config{Keys: []jwtauth.Key{{Secret: secret}}, AnySubject: true}
	change(&cfg)
	v, err := jwtauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sub(extra string) string { return fmt.Sprintf(`{"sub":"u1","exp":%d%s}`, now.Unix()+3600, extra) }

func TestSubjects(t *testing.T) {
	list := newSub(t, func(c *jwtauth.Config) {
		c.AnySubject, c.Subjects = false, []string{"auth0|123", "a@b.example", "Zoë"}
	})
	var asked []string
	allow := newSub(t, func(c *jwtauth.Config) {
		c.AnySubject = false
		c.SubjectAllowed = func(issuer, subject string) bool {
			asked = append(asked, issuer+" "+subject)
			return issuer == "i" && subject == "u1"
		}
	})
	anySubject := newSub(t, func(*jwtauth.Config) {})
	email := newSub(t, func(c *jwtauth.Config) { c.SubjectClaim = "email" })
	long := strings.Repeat("x", 255)
	for _, row := range []struct {
		name, claims string
		v            *jwtauth.Verifier
		want         wsauth.Reason
	}{
		{"of OpenID Connect", `{"sub":"auth0|123","exp":9999999999}`, list, ""},
		{"an address", `{"sub":"a@b.example","exp":9999999999}`, list, ""},
		{"not ASCII", `{"sub":"Zoë","exp":9999999999}`, list, ""},
		{"not on the list", `{"sub":"auth0|124","exp":9999999999}`, list, wsauth.ReasonSubject},
		{"allowed by the func", sub(`,"iss":"i"`), allow, ""},
		{"the same subject of another issuer", sub(`,"iss":"j"`), allow, wsauth.ReasonSubject},
		{"any", sub(""), anySubject, ""},
		{"any, of 255 bytes", `{"sub":"` + long + `","exp":9999999999}`, anySubject, ""},
		{"any, of 256 bytes", `{"sub":"x` + long + `","exp":9999999999}`, anySubject, wsauth.ReasonClaims},
		{"any, empty", `{"sub":"","exp":9999999999}`, anySubject, wsauth.ReasonClaims},
		{"any, none", `{"exp":9999999999}`, anySubject, wsauth.ReasonClaims},
		{"any, with a control character", `{"sub":"a\u0085b","exp":9999999999}`, anySubject, wsauth.ReasonClaims},
		{"another claim", `{"sub":"u1","email":"a@b.example","exp":9999999999}`, email, ""},
		{"another claim, missing", sub(""), email, wsauth.ReasonClaims},
	} {
		id, err := row.v.Verify(t.Context(), []byte(forge.HS256(common, row.claims, secret)), now)
		if got := reasonOf(t, err); got != row.want || err == nil && id.Subject == "" {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	if want := []string{"i u1", "j u1"}; !slices.Equal(asked, want) {
		t.Errorf("asked about %q, want %q", asked, want)
	}
	_, _ = allow.Verify(t.Context(), []byte(forge.HS256(common, sub(`,"iss":"i"`), other)), now)
	if len(asked) != 2 {
		t.Error("asked about a token with an invalid signature")
	}
}

// Exactly one rule for subjects is required.
func TestSubjectRules(t *testing.T) {
	yes := func(string, string) bool { return true }
	for name, row := range map[string]struct {
		change func(*jwtauth.Config)
		want   string
	}{
		"none":          {func(c *jwtauth.Config) {}, "Config.Subjects"},
		"list and any":  {func(c *jwtauth.Config) { c.Subjects, c.AnySubject = []string{"a"}, true }, "Config.AnySubject"},
		"func and any":  {func(c *jwtauth.Config) { c.SubjectAllowed, c.AnySubject = yes, true }, "Config.AnySubject"},
		"list and func": {func(c *jwtauth.Config) { c.Subjects, c.SubjectAllowed = []string{"a"}, yes }, "Config.SubjectAllowed"},
	} {
		cfg := jwtauth.Config{Keys: []jwtauth.Key{{Secret: secret}}}
		row.change(&cfg)
		_, err := jwtauth.New(cfg)
		if problem, ok := errors.AsType[*jwtauth.ConfigError](err); !ok || problem.Field != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

func TestIssuers(t *testing.T) {
	v := newSub(t, func(c *jwtauth.Config) { c.Issuers = []string{"a", "b"} })
	for claims, want := range map[string]wsauth.Reason{
		sub(`,"iss":"a"`): "", sub(`,"iss":"b"`): "", sub(`,"iss":"c"`): wsauth.ReasonIssuer,
		sub(`,"iss":""`): wsauth.ReasonIssuer, sub(""): wsauth.ReasonIssuer, sub(`,"iss":["a"]`): wsauth.ReasonClaims,
	} {
		_, err := v.Verify(t.Context(), []byte(forge.HS256(common, claims, secret)), now)
		if got := reasonOf(t, err); got != want {
			t.Errorf("%s: %q, want %q", claims, got, want)
		}
	}
	token, err := v.SignAt(claims, now)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := v.Verify(t.Context(), []byte(token), now); err != nil || id.Issuer != "a" {
		t.Errorf("signed as %q: %v", id.Issuer, err)
	}
}

func TestType(t *testing.T) {
	for _, row := range []struct {
		want, header string
		ok           bool
	}{
		{"at+jwt", `{"alg":"HS256","typ":"at+jwt"}`, true},
		{"at+jwt", `{"alg":"HS256","typ":"AT+JWT"}`, true},
		{"at+jwt", `{"alg":"HS256","typ":"application/at+jwt"}`, true},
		{"application/at+jwt", `{"alg":"HS256","typ":"at+jwt"}`, true},
		{"at+jwt", `{"alg":"HS256","typ":"Application/At+Jwt"}`, true},
		{"at+jwt", `{"alg":"HS256","typ":"application/at+jwt;v=1/2"}`, false},
		{"at+jwt", `{"alg":"HS256","typ":"x/at+jwt"}`, false},
		{"at+jwt", `{"alg":"HS256","typ":"JWT"}`, false},
		{"at+jwt", `{"alg":"HS256","typ":""}`, false},
		{"at+jwt", `{"alg":"HS256","typ":["at+jwt"]}`, false},
		{"at+jwt", `{"alg":"HS256"}`, false},
		{"JWT", common, true},
		{"", `{"alg":"HS256","typ":"anything"}`, true},
		{"", `{"alg":"HS256"}`, true},
	} {
		v := newSub(t, func(c *jwtauth.Config) { c.Type = row.want })
		_, err := v.Verify(t.Context(), []byte(forge.HS256(row.header, sub(""), secret)), now)
		if got := reasonOf(t, err); (got == "") != row.ok || !row.ok && (got != wsauth.ReasonClaims || !strings.Contains(err.Error(), `"typ"`)) {
			t.Errorf("%s for %q: %v", row.header, row.want, err)
		}
		token, err := v.SignAt(claims, now)
		if err != nil {
			t.Error(err)
		}
		if _, err := v.Verify(t.Context(), []byte(token), now); err != nil {
			t.Errorf("its own token for %q: %v", row.want, err)
		}
	}
}

// Without Roles, the words of the scope are the permissions.
func TestScopes(t *testing.T) {
	for _, row := range []struct {
		claim, extra string
		want         []string
		refused      wsauth.Reason
	}{
		{"", `,"scope":"read  chat:write"`, []string{"read", "chat:write"}, ""},
		{"", `,"scope":["read","chat:write"]`, []string{"read", "chat:write"}, ""},
		{"", `,"scope":""`, nil, ""},
		// Only a space separates words: a room may have any other name.
		{"", `,"scope":"read:a\u00a0publish read:b\u2003admin"`, []string{"read:a\u00a0publish", "read:b\u2003admin"}, ""},
		{"", `,"scope":[]`, nil, ""},
		{"", "", nil, ""},
		{"", `,"role":"admin","roles":1`, nil, ""}, // roles are not read
		{"", `,"scp":["read"]`, nil, ""},
		{"scp", `,"scp":["read"],"scope":7`, []string{"read"}, ""},
		{"permissions", `,"permissions":["read"]`, []string{"read"}, ""},
		{"", `,"scope":"` + strings.Repeat("word ", 200) + `read"`, append(slices.Repeat([]string{"word"}, 200), "read"), ""},
		{"", `,"scope":7`, nil, wsauth.ReasonClaims},
		{"", `,"scope":["read",7]`, nil, wsauth.ReasonClaims},
		{"", `,"scope":{"read":true}`, nil, wsauth.ReasonClaims},
		{"", `,"scope":null`, nil, wsauth.ReasonClaims},
		{"", `,"scope":"a\nb"`, nil, wsauth.ReasonClaims},
	} {
		v := newSub(t, func(c *jwtauth.Config) { c.ScopeClaim = row.claim })
		id, err := v.Verify(t.Context(), []byte(forge.HS256(common, sub(row.extra), secret)), now)
		if got := reasonOf(t, err); got != row.refused || !slices.Equal(id.Permissions, row.want) || id.Role != "" {
			t.Errorf("%q %s: %q %v", row.claim, row.extra, id.Permissions, err)
		}
	}
}

func TestSeveralRoles(t *testing.T) {
	roles := map[string][]string{"reader": {"read"}, "writer": {"read", "write"}}
	for _, row := range []struct {
		unset, extra, role string
		want               []string
		refused            wsauth.Reason
	}{
		{"", `,"roles":"writer"`, "writer", []string{"read", "write"}, ""},
		{"", `,"roles":["reader"]`, "reader", []string{"read"}, ""},
		{"", `,"roles":["reader","writer"]`, "reader writer", []string{"read", "write"}, ""},
		{"", `,"roles":["of another service","writer"]`, "writer", []string{"read", "write"}, ""},
		{"", `,"roles":["writer"],"scope":["write"]`, "writer", []string{"write"}, ""},
		{"", `,"roles":["of another service"]`, "", nil, wsauth.ReasonRole},
		{"reader", `,"roles":["of another service"]`, "", nil, wsauth.ReasonRole},
		{"", `,"roles":"reader writer"`, "", nil, wsauth.ReasonRole},
		{"", `,"roles":[]`, "", nil, wsauth.ReasonRole},
		{"", ``, "", nil, wsauth.ReasonRole},
		{"reader", `,"roles":[]`, "reader", []string{"read"}, ""},
		{"reader", ``, "reader", []string{"read"}, ""},
		{"reader", `,"role":"writer"`, "reader", []string{"read"}, ""},
		{"reader", `,"roles":null`, "", nil, wsauth.ReasonClaims},
		{"reader", `,"roles":""`, "", nil, wsauth.ReasonRole},
		{"reader", `,"roles":[["writer"]]`, "", nil, wsauth.ReasonClaims},
	} {
		v := newSub(t, func(c *jwtauth.Config) { c.Roles, c.RoleClaim, c.DefaultRole = roles, "roles", row.unset })
		id, err := v.Verify(t.Context(), []byte(forge.HS256(common, sub(row.extra), secret)), now)
		if got := reasonOf(t, err); got != row.refused || id.Role != row.role || !slices.Equal(id.Permissions, row.want) {
			t.Errorf("%q %s: %q %q %v", row.unset, row.extra, id.Role, id.Permissions, err)
		}
	}
	if len(roles["reader"]) != 1 || len(roles["writer"]) != 2 {
		t.Error("the roles were changed")
	}
}

// The detail of an error names the claim, and contains no value.
func TestDetail(t *testing.T) {
	v := newSub(t, func(c *jwtauth.Config) { c.Issuers, c.Audience = []string{"i"}, "a" })
	for claims, want := range map[string]string{
		`{"sub":"u1"}`:                            `claim "exp" is missing`,
		`{"exp":9999999999}`:                      `claim "sub" is missing or empty`,
		`{"sub":"u1","exp":"MARK"}`:               `claim "exp" is not a positive integer`,
		`{"sub":"u1","exp":9.5}`:                  `claim "exp" is not a positive integer`,
		`{"sub":["MARK"],"exp":9999999999}`:       `claim "sub" is not a string`,
		sub(`,"nbf":"MARK"`):                      `claim "nbf"`,
		sub(`,"jti":7`):                           `claim "jti"`,
		sub(`,"aud":{"MARK":1}`):                  `claim "aud" is not a string or a list`,
		sub(`,"scope":[1]`):                       `claim "scope"`,
		sub(``):                                   `claim "iss" is missing`,
		sub(`,"iss":"i"`):                         `claim "aud" is missing`,
		sub(`,"MARK":1,"MARK":2`):                 `a claim occurs twice`,
		`["MARK"]`:                                `the claims are not a JSON object`,
		`{"MARK":`:                                `the claims are not JSON`,
		`{"sub":"u1","exp":9999999999,"jti":"\n"`: `the claims are not JSON`,
	} {
		_, err := v.Verify(t.Context(), []byte(forge.HS256(common, claims, secret)), now)
		refused, ok := errors.AsType[*wsauth.Error](err)
		if !ok || !strings.HasPrefix(refused.Detail, want) || strings.Contains(err.Error(), "MARK") {
			t.Errorf("%s: %v, want %s", claims, err, want)
		}
	}
}

// Claims are all claims as the token has them.
func TestClaims(t *testing.T) {
	v := newSub(t, func(c *jwtauth.Config) {})
	want := sub(`,"email":"a@b.example","groups":["x"]`)
	token := []byte(forge.HS256(common, want, secret))
	id, err := v.Verify(t.Context(), token, now)
	clear(token) // which belongs to the caller
	if err != nil || string(id.Claims) != want {
		t.Errorf("%s %v", id.Claims, err)
	}
}

func TestConfigOfTimes(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*jwtauth.Config)
		want   string
	}{
		"no floor":                    {func(c *jwtauth.Config) { c.MinRefreshInterval = time.Millisecond }, "MinRefreshInterval is too short"},
		"a floor above the interval":  {func(c *jwtauth.Config) { c.RefreshInterval, c.MinRefreshInterval = time.Second, time.Minute }, "RefreshInterval is too short"},
		"stale before it is fetched":  {func(c *jwtauth.Config) { c.MaxStale = time.Minute }, "MaxStale is too short"},
		"negative":                    {func(c *jwtauth.Config) { c.MaxStale = -1 }, "MaxStale must not be negative"},
		"an interval without bound":   {func(c *jwtauth.Config) { c.RefreshInterval = 1 << 62 }, "RefreshInterval is too long"},
		"a default role, and no role": {func(c *jwtauth.Config) { c.DefaultRole = "x" }, "DefaultRole is not one of the choices"},
		"a role without a name":       {func(c *jwtauth.Config) { c.Roles = map[string][]string{"": nil} }, "Roles is malformed"},
		"a type with a quote":         {func(c *jwtauth.Config) { c.Type = `a"b` }, "Type is malformed"},
		"one issuer twice":            {func(c *jwtauth.Config) { c.Issuers = []string{"a", "a"} }, "Issuers[1] is a duplicate"},
		"a provider that is an issuer": {func(c *jwtauth.Config) {
			c.Issuers, c.Providers = []string{issuer}, []jwtauth.Provider{{Issuer: issuer}}
		}, "Providers[0].Issuer is a duplicate"},
		"a provider twice":    {func(c *jwtauth.Config) { c.Providers = []jwtauth.Provider{{Issuer: issuer}, {Issuer: issuer}} }, "Providers[1].Issuer is a duplicate"},
		"more than 8 of them": {func(c *jwtauth.Config) { c.Providers = make([]jwtauth.Provider, 9) }, "Providers is too long"},
	} {
		cfg := jwtauth.Config{Keys: []jwtauth.Key{{Secret: secret}}, AnySubject: true}
		row.change(&cfg)
		_, err := jwtauth.New(cfg)
		if !problems(err)["Config."+row.want] {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}
