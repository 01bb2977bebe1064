package refresh_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// If the store fails, the error says so, no token is used up, and the next try
// succeeds.
func TestIssuerStoreFails(t *testing.T) {
	store := &faultyStore{}
	i, r := newIssuer(t, func(c *refresh.Config) { c.Store = store })
	ctx := t.Context()
	first := issue(t, i, "pi-1")
	second, err := i.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now)
	if err != nil {
		t.Fatal(err)
	}
	use := func(token string, at time.Time) error {
		_, err := i.RefreshAt(ctx, token, wsauth.Peer{}, at)
		return err
	}
	late := now.Add(time.Minute)
	for _, row := range []struct {
		method string
		call   func() error
	}{
		{"Create", func() error { _, err := i.IssueAt(ctx, refresh.Grant{Subject: "pi-1"}, now); return err }},
		{"Load", func() error { return use(second.RefreshToken, now) }},
		{"Rotate", func() error { return use(second.RefreshToken, now) }},
		{"Remove", func() error { return use(first.RefreshToken, late) }},
		{"Remove", func() error { _, err := i.RevokeSubjectAt(ctx, "pi-1", now); return err }},
		{"Remove", func() error { _, err := i.RevokeFamilyAt(ctx, store.families[0].ID, now); return err }},
		{"List", func() error { _, err := i.RevokeSubjectAt(ctx, "pi-1", now); return err }},
		{"List", func() error { _, err := i.FamiliesAt(ctx, now); return err }},
	} {
		store.fails = row.method
		err := row.call()
		if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok || !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "on fire") {
			t.Errorf("%s: %v", row.method, err)
		}
		if len(store.families) != 1 || store.families[0].Generation != 2 || len(r.revoked) != 0 {
			t.Fatalf("%s: changed something: %+v", row.method, store.families)
		}
	}
	store.fails = "the race" // refuse a rotation that no other call has made
	if _, ok := errors.AsType[*wsauth.UnavailableError](use(second.RefreshToken, now)); !ok {
		t.Error("an inconsistent store")
	}
	store.fails = ""
	if err := use(second.RefreshToken, now); err != nil {
		t.Error("the token was used up:", err)
	}
	if got := reasonOf(t, use(first.RefreshToken, late)); got != wsauth.ReasonReused || len(r.revoked) != 1 {
		t.Error(got)
	}
}

// If two calls rotate one token, the slower one returns the pair of the faster
// one. If the faster one revokes, the slower one is refused. The Signer is
// called between Load and Rotate, so that it can start the faster call.
func TestIssuerLosesRace(t *testing.T) {
	var overtake func()
	i, r := newIssuer(t, func(c *refresh.Config) {
		good := c.Signer
		c.Signer = signerFunc(func(claims wsauth.ClaimSet, now time.Time) (string, error) {
			if f := overtake; f != nil {
				overtake = nil
				f()
			}
			return good.SignAt(claims, now)
		})
	})
	ctx := t.Context()
	first := issue(t, i, "pi-1")
	var winner refresh.Pair
	overtake = func() { winner, _ = i.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now) }
	loser, err := i.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now)
	if err != nil || loser != winner || winner.Token == "" {
		t.Errorf("%v and %v, %v", winner, loser, err)
	}
	overtake = func() { _, _ = i.RevokeSubjectAt(ctx, "pi-1", now) }
	_, err = i.RefreshAt(ctx, winner.RefreshToken, wsauth.Peer{}, now)
	if got := reasonOf(t, err); got != wsauth.ReasonUnknown {
		t.Errorf("got %q", got)
	}
	if all, err := i.FamiliesAt(ctx, now); len(all) != 0 || err != nil {
		t.Errorf("a revoked family is back: %v, %v", all, err)
	}
	if got := r.kinds(); got != "pair_issued pair_rotated pair_repeated family_revoked:revoked pair_refused:unknown" {
		t.Error(got)
	}
}

// The store contains only hashes, and salts with which a token can be computed
// only from the one before.
func TestIssuerStoresHashes(t *testing.T) {
	store := &faultyStore{}
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = store })
	p := issue(t, i, "pi-1")
	var seen bytes.Buffer
	var secrets [][]byte
	var salt [32]byte
	for n := range 3 {
		raw, err := base64.RawURLEncoding.DecodeString(p.RefreshToken[len("rgrt_"):])
		if err != nil || len(raw) != 48 {
			t.Fatal(len(raw), err)
		}
		f := store.families[0]
		if f.Current != sha256.Sum256(raw[16:]) {
			t.Error("not the SHA-256 of the secret")
		}
		if n > 0 {
			if f.Salt == salt {
				t.Error("a salt that is not random")
			}
			salt = f.Salt
			mac := hmac.New(sha256.New, f.Salt[:])
			mac.Write(secrets[len(secrets)-1])
			if !hmac.Equal(mac.Sum(nil), raw[16:]) {
				t.Error("not made of the salt and the token before")
			}
		}
		secrets = append(secrets, raw[:16], raw[16:])
		for _, kept := range [][32]byte{f.Current, f.Previous, f.Salt} {
			seen.Write(kept[:])
		}
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(text)
		fmt.Fprintf(&seen, "%+v %s", f, p.TokenID)
		if p, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range secrets {
		for _, form := range []string{string(s), fmt.Sprintf("%x", s), fmt.Sprint(s), base64.StdEncoding.EncodeToString(s)} {
			if bytes.Contains(seen.Bytes(), []byte(form)) {
				t.Fatal("the store has a secret")
			}
		}
	}
}

// The sessions of a removed family end even if the Store cannot make the
// removal durable.
func TestIssuerRevokesInDoubt(t *testing.T) {
	i, r := newIssuer(t, func(c *refresh.Config) { c.Store = &faultyStore{fails: "Remove, late"} })
	issue(t, i, "pi-1")
	if n, err := i.RevokeSubjectAt(t.Context(), "pi-1", now); n != 1 || !errors.Is(err, errDisk) || len(r.revoked) != 1 {
		t.Errorf("%d, %v, %d calls of OnRevoked", n, err, len(r.revoked))
	}
}

type signerFunc func(wsauth.ClaimSet, time.Time) (string, error)

func (f signerFunc) SignAt(c wsauth.ClaimSet, now time.Time) (string, error) { return f(c, now) }

// A refresh token is not used up if the Signer refuses, such as for a device
// that is removed from the list for a while.
func TestIssuerSignerFails(t *testing.T) {
	var failure error
	i, _ := newIssuer(t, func(c *refresh.Config) {
		good := c.Signer
		c.Signer = signerFunc(func(claims wsauth.ClaimSet, now time.Time) (string, error) {
			if failure != nil {
				return "", failure
			}
			return good.SignAt(claims, now)
		})
	})
	p := issue(t, i, "pi-1")
	failure = fmt.Errorf("wrapped: %w", &wsauth.Error{Reason: wsauth.ReasonSubject})
	_, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now)
	if got := reasonOf(t, err); got != wsauth.ReasonSubject {
		t.Error(got)
	}
	another := &wsauth.Error{Reason: wsauth.ReasonExpired} // of the token with which the Signer logs in somewhere
	for _, failure = range []error{errDisk, &wsauth.UnavailableError{Err: errors.Join(errDisk, another)}} {
		_, err = i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now)
		if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok || !errors.Is(err, errDisk) {
			t.Error(err)
		}
		if w := post(i, refreshBody(p.RefreshToken)); w.Code != 503 {
			t.Error(failure, w.Code)
		}
	}
	failure = nil
	if q, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil || q.TokenID == p.TokenID {
		t.Error(q, err)
	}
}

// Random histories agree with a model that remembers every token. Each byte is
// a time to wait and one of the last tokens to use.
func FuzzIssuerHistory(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 1, 1, 0x41, 0, 1, 0xf1})
	f.Add([]byte{0, 0, 2})
	signer := newHS256(f)
	waits := [...]time.Duration{0, time.Second, 19 * time.Second, 20 * time.Second, time.Minute, time.Hour - 1, time.Hour, 5 * time.Hour}
	f.Fuzz(func(t *testing.T, story []byte) {
		i, err := refresh.New(refresh.Config{Signer: signer, IdleTimeout: time.Hour, Lifetime: 10 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		pairs := []refresh.Pair{issue(t, i, "pi-1")}
		at, rotated, revoked := now, now, false
		for _, b := range story {
			at = at.Add(waits[b>>5])
			back := min(int(b&3), len(pairs)-1)
			var want wsauth.Reason
			switch {
			case revoked:
				want = wsauth.ReasonUnknown
			case !at.Before(rotated.Add(time.Hour)) || !at.Before(now.Add(10*time.Hour)):
				want = wsauth.ReasonExpired
			case back > 1 || back == 1 && !at.Before(rotated.Add(20*time.Second)):
				want, revoked = wsauth.ReasonReused, true
			}
			p, err := i.RefreshAt(context.Background(), pairs[len(pairs)-1-back].RefreshToken, wsauth.Peer{}, at)
			if got := reasonOf(t, err); got != want {
				t.Fatalf("%x: got %q, want %q", story, got, want)
			}
			switch {
			case err != nil:
			case back == 0:
				pairs, rotated = append(pairs, p), at
				if !p.ExpiresAt.After(at) {
					t.Fatalf("%x: expired as it was made", story)
				}
			case p != pairs[len(pairs)-1]:
				t.Fatalf("%x: another pair within the grace", story)
			}
		}
	})
}

var errDisk = errors.New("disk on fire")

// faultyStore is a Store whose method fails returns an error.
type faultyStore struct {
	fails    string
	families []refresh.StoredFamily
}

func (s *faultyStore) fail(method string) error {
	if s.fails == method {
		return errDisk
	}
	return nil
}

func (s *faultyStore) index(id string) int {
	for n, f := range s.families {
		if f.ID == id {
			return n
		}
	}
	return -1
}

func (s *faultyStore) Create(_ context.Context, f refresh.StoredFamily, _ time.Time) error {
	err := s.fail("Create")
	if err == nil {
		s.families = append(s.families, f)
	}
	return err
}

func (s *faultyStore) Load(_ context.Context, id string) (f refresh.StoredFamily, found bool, err error) {
	if n := s.index(id); n >= 0 {
		f, found = s.families[n], true
	}
	return f, found, s.fail("Load")
}

func (s *faultyStore) Rotate(_ context.Context, f refresh.StoredFamily, from uint64) (bool, error) {
	n := s.index(f.ID)
	if err := s.fail("Rotate"); err != nil || n < 0 || s.families[n].Generation != from {
		return false, err
	}
	if s.fails == "the race" {
		return false, nil
	}
	s.families[n] = f
	return true, nil
}

func (s *faultyStore) Remove(_ context.Context, id string) (f refresh.StoredFamily, found bool, err error) {
	n := s.index(id)
	if err := s.fail("Remove"); err != nil || n < 0 {
		return f, false, err
	}
	f = s.families[n]
	s.families = append(s.families[:n:n], s.families[n+1:]...)
	return f, true, s.fail("Remove, late")
}

func (s *faultyStore) List(context.Context) ([]refresh.Family, error) {
	var all []refresh.Family
	for _, f := range s.families {
		all = append(all, f.Family)
	}
	if err := s.fail("List"); err != nil {
		return nil, err
	}
	return all, nil
}
