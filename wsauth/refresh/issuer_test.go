package refresh_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/leaktest"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// trail records the events and revocations of an Issuer.
type trail struct {
	mu      sync.Mutex
	events  []wsauth.Event
	revoked []refresh.Revocation
}

func (r *trail) kinds() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events {
		text := string(e.Kind)
		if e.Reason != "" {
			text += ":" + string(e.Reason)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func newIssuer(t testing.TB, change func(*refresh.Config)) (*refresh.Issuer, *trail) {
	t.Helper()
	r := new(trail)
	cfg := refresh.Config{
		Signer: newHS256(t),
		Audit: func(e wsauth.Event) {
			leaktest.Audited(e)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
		OnRevoked: func(v refresh.Revocation) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.revoked = append(r.revoked, v)
		},
	}
	if change != nil {
		change(&cfg)
	}
	i, err := refresh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i, r
}

func issue(t testing.TB, i *refresh.Issuer, device string) refresh.Pair {
	t.Helper()
	p, err := i.IssueAt(t.Context(), refresh.Grant{Subject: device}, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIssuerConfig(t *testing.T) {
	signer := newHS256(t)
	for _, row := range []struct {
		why  string
		cfg  refresh.Config
		want string
	}{
		{"the defaults", refresh.Config{Signer: signer}, ""},
		{"lifetimes of a test", refresh.Config{Signer: signer, AccessLifetime: 2 * time.Second}, ""},
		{"nothing to sign with", refresh.Config{}, "Signer is required"},
		{"every problem at once", refresh.Config{AccessLifetime: -1, MaxFamilies: -1}, "Signer is required, AccessLifetime must not be negative, MaxFamilies must not be negative"},
		{"a second may be over as it begins", refresh.Config{Signer: signer, AccessLifetime: time.Second}, "AccessLifetime is too short"},
		{"not short-lived", refresh.Config{Signer: signer, AccessLifetime: 25 * time.Hour}, "AccessLifetime is too long"},
		{"idle before the token has expired", refresh.Config{Signer: signer, IdleTimeout: time.Minute}, "IdleTimeout is too short"},
		{"over before the token has expired", refresh.Config{Signer: signer, Lifetime: time.Minute}, "Lifetime is too short"},
		{"a key that can be guessed", refresh.Config{Signer: signer, Key: make([]byte, 31)}, "Key is too short"},
		{"a key", refresh.Config{Signer: signer, Key: make([]byte, 32)}, ""},
		{"a repeated answer would be expired", refresh.Config{Signer: signer, AccessLifetime: 20 * time.Second, Grace: 20 * time.Second}, "Grace is too long"},
	} {
		_, err := refresh.New(row.cfg)
		var got []string
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				p, ok := errors.AsType[*refresh.ConfigError](e)
				if !ok || !errors.Is(e, p.Reason) || p.Error() != "refresh: "+p.Field+" "+p.Reason.Error() {
					t.Fatalf("%s: untyped %v", row.why, e)
				}
				got = append(got, strings.TrimPrefix(p.Error(), "refresh: Config."))
			}
		}
		if strings.Join(got, ", ") != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
	}
}

func TestIssuerPair(t *testing.T) {
	i, r := newIssuer(t, nil)
	p, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1", Role: "admin", Scope: []string{wsauth.Admin}}, now)
	if err != nil {
		t.Fatal(err)
	}
	v := newHS256(t)
	for n := 1; n <= 3; n++ {
		id, err := v.Verify(t.Context(), []byte(p.Token), now)
		if err != nil || id.Subject != "pi-1" || id.Role != "admin" || id.Can(wsauth.Publish) || !id.Can(wsauth.Admin) {
			t.Errorf("pair %d: %+v, %v", n, id, err)
		}
		if id.TokenID != p.TokenID || !strings.HasSuffix(p.TokenID, fmt.Sprintf(".%d", n)) {
			t.Errorf("pair %d: ID %s in the token, %s beside it", n, id.TokenID, p.TokenID)
		}
		if !id.ExpiresAt.Equal(now.Add(15*time.Minute)) || !p.ExpiresAt.Equal(id.ExpiresAt) || !p.RefreshUntil.Equal(now.Add(7*24*time.Hour)) {
			t.Errorf("pair %d: ends %v and %v", n, p.ExpiresAt, p.RefreshUntil)
		}
		if !p.EndsAt.Equal(time.Unix(now.Add(90*24*time.Hour).Unix(), 0)) {
			t.Errorf("pair %d: the family ends %v", n, p.EndsAt)
		}
		if p, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{ID: "x"}, now); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.kinds(); got != "pair_issued pair_rotated pair_rotated pair_rotated" {
		t.Error(got)
	}
	last := r.events[3]
	if last.Subject != "pi-1" || last.Peer.ID != "x" || last.TokenID != p.TokenID || !last.Time.Equal(now) {
		t.Errorf("event %+v", last)
	}
}

func TestIssuerRefusesGrants(t *testing.T) {
	i, r := newIssuer(t, nil)
	for _, g := range []refresh.Grant{{}, {Subject: "stranger"}, {Subject: "pi-1", Role: "none"}} {
		_, err := i.IssueAt(t.Context(), g, now)
		if reasonOf(t, err) == "" {
			t.Errorf("issued %+v", g)
		}
	}
	if got, err := i.FamiliesAt(t.Context(), now); len(got) != 0 || err != nil {
		t.Errorf("%d families, %v", len(got), err)
	}
	if got := r.kinds(); got != "pair_refused:claims pair_refused:subject pair_refused:role" {
		t.Error(got)
	}
}

// In each step of a row, the token of generation use is used at the time at.
// want is the generation of the answer, or a reason.
func TestIssuerStories(t *testing.T) {
	const grace, idle, life = 20 * time.Second, time.Hour, 3 * time.Hour
	type step struct {
		at   time.Duration
		use  int
		want string
	}
	for _, row := range []struct {
		why   string
		steps []step
	}{
		{"rotation", []step{{time.Minute, 1, "2"}, {2 * time.Minute, 2, "3"}, {3 * time.Minute, 3, "4"}}},
		{"a lost answer", []step{{0, 1, "2"}, {grace - 1, 1, "2"}, {grace - 1, 2, "3"}}},
		{"an answer lost again and again", []step{{0, 1, "2"}, {1, 1, "2"}, {2, 1, "2"}, {3, 2, "3"}}},
		{"repeating does not prolong the grace", []step{{0, 1, "2"}, {grace - 1, 1, "2"}, {grace, 1, "reused"}}},
		{"a clock that steps back", []step{{time.Minute, 1, "2"}, {0, 1, "2"}}},
		{"a stolen token, used late", []step{{0, 1, "2"}, {grace, 1, "reused"}, {grace, 2, "unknown"}, {grace, 1, "unknown"}}},
		{"no grace once the successor was used", []step{{0, 1, "2"}, {1, 2, "3"}, {2, 1, "reused"}, {3, 3, "unknown"}}},
		{"one from long ago", []step{{0, 1, "2"}, {time.Minute, 2, "3"}, {2 * time.Minute, 3, "4"}, {3 * time.Minute, 1, "reused"}}},
		{"just not idle too long", []step{{idle - 1, 1, "2"}, {2*idle - 2, 2, "3"}}},
		{"idle", []step{{idle, 1, "expired"}}},
		{"idle since the last refresh", []step{{time.Minute, 1, "2"}, {idle + time.Minute, 2, "expired"}}},
		{"the end, however busy", []step{{idle - 1, 1, "2"}, {2*idle - 2, 2, "3"}, {3*idle - 3, 3, "4"}, {life, 4, "expired"}}},
	} {
		i, r := newIssuer(t, func(c *refresh.Config) { c.IdleTimeout, c.Lifetime = idle, life })
		pairs := []refresh.Pair{{}, issue(t, i, "pi-1")}
		revoked := 0
		for n, s := range row.steps {
			p, err := i.RefreshAt(t.Context(), pairs[s.use].RefreshToken, wsauth.Peer{}, now.Add(s.at))
			got := string(reasonOf(t, err))
			if err == nil {
				if k := slices.Index(pairs, p); k > 0 {
					got = fmt.Sprint(k) // the same pair again
				} else {
					got = fmt.Sprint(len(pairs))
					pairs = append(pairs, p)
				}
				if p.ExpiresAt.After(now.Add(life)) || !p.ExpiresAt.After(now.Add(s.at)) {
					t.Errorf("%s: step %d: the access token ends %v after the beginning", row.why, n, p.ExpiresAt.Sub(now))
				}
			}
			if got == "reused" {
				revoked++
			}
			if got != s.want {
				t.Errorf("%s: step %d: got %s, want %s", row.why, n, got, s.want)
			}
		}
		if len(r.revoked) != revoked {
			t.Errorf("%s: reported %d revocations, want %d", row.why, len(r.revoked), revoked)
		}
	}
}

// Text that is not a refresh token of the family does not affect it, unless it
// contains the handle of the family, which only its tokens contain.
func TestIssuerForged(t *testing.T) {
	i, _ := newIssuer(t, nil)
	foreign, _ := newIssuer(t, nil)
	pair := issue(t, i, "pi-1")
	mine, theirs := pair.RefreshToken, issue(t, foreign, "pi-1").RefreshToken
	const handle = len("rgrt_") + 20
	for _, row := range []struct {
		why, token string
		want       wsauth.Reason
	}{
		{"empty", "", wsauth.ReasonMalformed},
		{"no prefix", mine[len("rgrt_"):], wsauth.ReasonMalformed},
		{"truncated", mine[:len(mine)-1], wsauth.ReasonMalformed},
		{"longer", mine + "A", wsauth.ReasonMalformed},
		{"padded", mine + "==", wsauth.ReasonMalformed},
		{"a line break, which base64 decoders skip", mine[:40] + "\n" + mine[41:], wsauth.ReasonMalformed},
		{"a line break more", mine + "\n", wsauth.ReasonMalformed},
		{"the other alphabet", mine[:40] + "+" + mine[41:], wsauth.ReasonMalformed},
		{"an access token", pair.Token, wsauth.ReasonMalformed},
		{"another server's", theirs, wsauth.ReasonUnknown},
		{"another handle with the right secret", theirs[:handle] + mine[handle:], wsauth.ReasonUnknown},
	} {
		_, err := i.RefreshAt(t.Context(), row.token, wsauth.Peer{}, now)
		if got := reasonOf(t, err); got != row.want {
			t.Errorf("%s: got %q, want %q", row.why, got, row.want)
		}
		if row.token != "" && strings.Contains(fmt.Sprintf("%v %+v", err, err), row.token) {
			t.Errorf("%s: the error holds it", row.why)
		}
	}
	second, err := i.RefreshAt(t.Context(), mine, wsauth.Peer{}, now)
	if err != nil {
		t.Fatal("the family was harmed:", err)
	}
	_, err = i.RefreshAt(t.Context(), second.RefreshToken[:handle+2]+theirs[handle+2:], wsauth.Peer{}, now)
	if got := reasonOf(t, err); got != wsauth.ReasonReused {
		t.Errorf("right handle, wrong secret: got %q", got)
	}
}

func TestIssuerParallel(t *testing.T) {
	i, r := newIssuer(t, nil)
	first, err := i.Issue(t.Context(), refresh.Grant{Subject: "pi-1"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	var pairs [n]refresh.Pair
	var errs [n]error
	together(n, func(k int) { pairs[k], errs[k] = i.Refresh(t.Context(), first.RefreshToken, wsauth.Peer{}) })
	for k := range n {
		if errs[k] != nil || pairs[k] != pairs[0] {
			t.Fatalf("call %d: %v, another pair: %t", k, errs[k], pairs[k] != pairs[0])
		}
	}
	if got := strings.Count(r.kinds(), "pair_rotated"); got != 1 {
		t.Errorf("%d rotations", got)
	}
	if got := strings.Count(r.kinds(), "pair_repeated"); got != n-1 {
		t.Errorf("%d repetitions", got)
	}

	if _, err := i.Refresh(t.Context(), pairs[0].RefreshToken, wsauth.Peer{}); err != nil {
		t.Fatal(err)
	}
	together(n, func(k int) { _, errs[k] = i.Refresh(t.Context(), first.RefreshToken, wsauth.Peer{}) })
	for k := range n {
		if got := reasonOf(t, errs[k]); got != wsauth.ReasonReused && got != wsauth.ReasonUnknown {
			t.Errorf("call %d: %q", k, got)
		}
	}
	if len(r.revoked) != 1 || r.revoked[0].Reason != wsauth.ReasonReused || r.revoked[0].Family.Subject != "pi-1" {
		t.Errorf("revocations: %+v", r.revoked)
	}
}

func together(n int, f func(int)) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for k := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			f(k)
		})
	}
	done.Wait()
}

func TestIssuerRevoke(t *testing.T) {
	i, r := newIssuer(t, nil)
	a, b, c := issue(t, i, "pi-1"), issue(t, i, "pi-1"), issue(t, i, "pi-2")
	if n, err := i.RevokeSubjectAt(t.Context(), "nobody", now); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := i.RevokeSubjectAt(t.Context(), "pi-1", now.Add(time.Second)); n != 2 || err != nil {
		t.Error(n, err)
	}
	for _, v := range r.revoked {
		if v.Family.Subject != "pi-1" || v.Reason != wsauth.ReasonRevoked || !v.IssuedBefore.Equal(now.Add(time.Second+1)) {
			t.Errorf("%+v", v)
		}
	}
	for _, p := range []refresh.Pair{a, b} {
		if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); reasonOf(t, err) != wsauth.ReasonUnknown {
			t.Error("after revocation:", err)
		}
	}
	if _, err := i.RefreshAt(t.Context(), c.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Error("another device's:", err)
	}
	all, err := i.FamiliesAt(t.Context(), now)
	if err != nil || len(all) != 1 || all[0].Subject != "pi-2" || all[0].Generation != 2 || !strings.HasPrefix(c.TokenID, all[0].ID+".") {
		t.Fatalf("%+v %v", all, err)
	}
	for _, want := range []bool{true, false} {
		if got, err := i.RevokeFamilyAt(t.Context(), all[0].ID, now); got != want || err != nil {
			t.Error(got, err)
		}
	}
	if len(r.revoked) != 3 {
		t.Errorf("%d revocations", len(r.revoked))
	}
}

func TestIssuerBound(t *testing.T) {
	i, _ := newIssuer(t, func(c *refresh.Config) { c.MaxFamilies, c.IdleTimeout = 2, time.Hour })
	a, b := issue(t, i, "pi-1"), issue(t, i, "pi-1")
	if _, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, now); !errors.Is(err, refresh.ErrTooManyFamilies) {
		t.Error(err)
	}
	later := now.Add(time.Minute)
	if _, err := i.RefreshAt(t.Context(), b.RefreshToken, wsauth.Peer{}, later); err != nil {
		t.Error("a full store must not end a family:", err)
	}
	if _, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-2"}, now.Add(time.Hour)); err != nil {
		t.Error("the idle one leaves room:", err)
	}
	if _, err := i.RefreshAt(t.Context(), a.RefreshToken, wsauth.Peer{}, now); reasonOf(t, err) != wsauth.ReasonUnknown {
		t.Error(err)
	}
}

// A family keeps its scope when the caller changes the slice in the Grant.
func TestIssuerKeepsScope(t *testing.T) {
	i, _ := newIssuer(t, nil)
	scope := []string{wsauth.Publish}
	p, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1", Role: "admin", Scope: scope}, now)
	if err != nil {
		t.Fatal(err)
	}
	scope[0] = wsauth.Admin
	if p, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Fatal(err)
	}
	id, err := newHS256(t).Verify(t.Context(), []byte(p.Token), now)
	if err != nil || id.Can(wsauth.Admin) || !id.Can(wsauth.Publish) {
		t.Errorf("%+v %v", id, err)
	}
}

// The methods without a time use the present time.
func TestIssuerPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, r := newIssuer(t, nil)
		ctx := t.Context()
		p := issueNow(t, i)
		issueNow(t, i)
		time.Sleep(6 * 24 * time.Hour)
		if _, err := i.Refresh(ctx, p.RefreshToken, wsauth.Peer{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		all, err := i.Families(ctx)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if ok, err := i.RevokeFamily(ctx, all[0].ID); !ok || err != nil {
			t.Error(ok, err)
		}
		if n, err := i.RevokeSubject(ctx, "pi-1"); n != 1 || err != nil {
			t.Error("the one that was idle is still to be revoked:", n, err)
		}
		for _, v := range r.revoked {
			if !v.IssuedBefore.Equal(time.Now().Add(1)) {
				t.Error(v.IssuedBefore)
			}
		}
	})
}

// Refreshing in time, and again after a lost answer, logs no warning.
func TestHealthyRefreshLogsNoWarning(t *testing.T) {
	var log bytes.Buffer
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Audit = wsauth.AuditLog(slog.New(slog.NewTextHandler(&log, nil))) })
	p := issue(t, i, "pi-1")
	for range 2 {
		if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "level=INFO "); n != 3 || strings.Count(log.String(), "\n") != n {
		t.Error(log.String())
	}
	if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now.Add(time.Hour)); err == nil {
		t.Fatal("a stolen token is good")
	}
	if n := strings.Count(log.String(), "level=WARN "); n != 2 { // family_revoked and pair_refused
		t.Error(log.String())
	}
}

func TestPairPrintsNoToken(t *testing.T) {
	i, _ := newIssuer(t, nil)
	p := issue(t, i, "pi-1")
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, p)
		fmt.Fprintf(&out, verb, []refresh.Pair{p})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "pair", p)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "pair", p)
	for _, token := range []string{p.Token, p.RefreshToken, fmt.Sprintf("%x", p.RefreshToken)} {
		if strings.Contains(out.String(), token) {
			t.Error("a token is in", out.String())
		}
	}
	if !strings.Contains(out.String(), p.TokenID) {
		t.Error("no ID in", out.String())
	}
}

// An Issuer signs with any key of its Signer, for users as for devices.
func TestIssuerOfUsers(t *testing.T) {
	for _, alg := range []string{jwtauth.EdDSA, jwtauth.ES256} {
		private, public, err := jwtauth.NewKeyPair(alg)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{PEM: private}}, AnySubject: true})
		if err != nil {
			t.Fatal(err)
		}
		service, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{PEM: public}}, AnySubject: true})
		if err != nil {
			t.Fatal(err)
		}
		i, _ := newIssuer(t, func(c *refresh.Config) { c.Signer = signer })
		p, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "auth0|ann@example.com", Scope: []string{"read:lobby"}}, now)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		id, err := service.Verify(t.Context(), []byte(p.Token), now.Add(time.Minute))
		if err != nil || id.Subject != "auth0|ann@example.com" || !id.Can(wsauth.Read, "lobby") || id.Can(wsauth.Read) {
			t.Errorf("%s: %+v, %v", alg, id, err)
		}
		if n, err := i.RevokeSubjectAt(t.Context(), id.Subject, now.Add(2*time.Minute)); n != 1 || err != nil {
			t.Error(n, err)
		}
	}
}
