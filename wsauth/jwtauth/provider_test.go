package jwtauth_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/forge"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

const issuer = "https://id.example"

// provider is an OpenID Connect provider. As a Transport it answers without a
// network, so that time can be that of a test.
type provider struct {
	mu      sync.Mutex
	keys    []map[string]any
	times   []time.Time // of requests for the key set
	down    bool
	silent  bool // answers nothing until the request ends
	running int
	most    int // requests at the same time
}

func (p *provider) publish(keys ...map[string]any) { p.set(func() { p.keys = keys }) }

func (p *provider) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *provider) fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.times)
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.times = append(p.times, time.Now())
	p.running++
	p.most = max(p.most, p.running)
	down, silent, keys := p.down, p.silent, p.keys
	p.mu.Unlock()
	defer p.set(func() { p.running-- })
	if silent {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	time.Sleep(10 * time.Millisecond) // of the synctest clock
	if down {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	_, _ = w.Write(set(keys...))
	return w.Result(), nil
}

// trusting returns a verifier with p as its provider, which has one key, and a
// function that signs a token with a new key of that ID.
func trusting(t *testing.T, p *provider, change func(*jwtauth.Config)) *jwtauth.Verifier {
	t.Helper()
	cfg := jwtauth.Config{
		Providers: []jwtauth.Provider{{Issuer: issuer, JWKS: issuer + "/keys"}}, AnySubject: true, Transport: p,
	}
	if change != nil {
		change(&cfg)
	}
	v, err := jwtauth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// tokenOf returns a token of the issuer, signed with the private key.
func tokenOf(t testing.TB, k pair, iss string) []byte {
	t.Helper()
	key := jwtauth.Key{PEM: k.private, Algorithm: k.alg}
	if kid, ok := k.jwk["kid"].(string); ok {
		key.ID = kid
	}
	signer, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{key}, Issuers: []string{iss}, AnySubject: true})
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.SignAt(claims, now)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(token)
}

// outcome is "" for an accepted token, "unavailable", or the reason of a
// refusal.
func outcome(t testing.TB, v *jwtauth.Verifier, token []byte) wsauth.Reason {
	t.Helper()
	_, err := v.Verify(t.Context(), token, now)
	if _, ok := errors.AsType[*wsauth.UnavailableError](err); ok {
		return wsauth.ReasonUnavailable
	}
	return reasonOf(t, err)
}

func TestFirstTokenFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newPair(t, jwtauth.ES256, "k1", 0)
		p := &provider{}
		p.publish(k.jwk)
		v := trusting(t, p, nil)
		id, err := v.Verify(t.Context(), tokenOf(t, k, issuer), now)
		if err != nil || id.Issuer != issuer || id.KeyID != "k1" || !id.Can("publish") {
			t.Errorf("%+v %v", id, err)
		}
		if got := outcome(t, v, tokenOf(t, k, issuer)); got != "" || p.fetches() != 1 {
			t.Errorf("%q after %d fetches", got, p.fetches())
		}
	})
}

// A key of a provider verifies only tokens of its issuer, and no other key
// does.
func TestKeysAreBoundToTheirIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, own := newPair(t, jwtauth.ES256, "k1", 0), newPair(t, jwtauth.ES256, "k1", 0), newPair(t, jwtauth.ES256, "own", 0)
		sets := map[string]*provider{"a.example": {}, "b.example": {}}
		sets["a.example"].publish(a.jwk)
		sets["b.example"].publish(b.jwk)
		v := trusting(t, nil, func(c *jwtauth.Config) {
			c.Providers = []jwtauth.Provider{{Issuer: "https://a.example", JWKS: "https://a.example/"}, {Issuer: "https://b.example", JWKS: "https://b.example/"}}
			c.Keys = []jwtauth.Key{{PEM: own.public, ID: "own"}}
			c.Transport = transport(func(r *http.Request) (*http.Response, error) { return sets[r.URL.Host].RoundTrip(r) })
		})
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			name  string
			token []byte
			want  wsauth.Reason
		}{
			{"a for a", tokenOf(t, a, "https://a.example"), ""},
			{"b for b", tokenOf(t, b, "https://b.example"), ""},
			{"b for a, under the same kid", tokenOf(t, b, "https://a.example"), wsauth.ReasonSignature},
			{"a without iss", tokenOf(t, a, "-"), wsauth.ReasonIssuer},
			{"a key of the ring for a", tokenOf(t, own, "https://a.example"), wsauth.ReasonIssuer},
			{"a key of the ring for another", tokenOf(t, own, "https://c.example"), ""},
		} {
			if got := outcome(t, v, row.token); got != row.want {
				t.Errorf("%s: %q, want %q", row.name, got, row.want)
			}
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A flood of unknown IDs causes one fetch per floor, however many goroutines
// send them, and never two at the same time.
func TestFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newPair(t, jwtauth.EdDSA, "k1", 0)
		p := &provider{}
		p.publish(k.jwk)
		v := trusting(t, p, func(c *jwtauth.Config) { c.Keys = []jwtauth.Key{{ID: "own", Secret: secret}} })
		stranger := newPair(t, jwtauth.EdDSA, "x", 0)
		foreign := tokenOf(t, stranger, "https://other.example")
		unknown := tokenOf(t, stranger, issuer)
		if got := outcome(t, v, foreign); got != wsauth.ReasonKey || p.fetches() != 0 {
			t.Errorf("a token of another issuer: %q after %d fetches", got, p.fetches())
		}
		hmac := []byte(forge.HS256(`{"alg":"HS256","kid":"x"}`, sub(`,"iss":"`+issuer+`"`), other))
		if got := outcome(t, v, hmac); got != wsauth.ReasonKey || p.fetches() != 0 {
			t.Errorf("an algorithm that no provider has: %q after %d fetches", got, p.fetches())
		}
		var all sync.WaitGroup
		end := time.Now().Add(35 * time.Second)
		for range 20 {
			all.Go(func() {
				for time.Now().Before(end) {
					if got := outcome(t, v, unknown); got != wsauth.ReasonKey {
						t.Errorf("refused as %q", got)
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		all.Wait()
		if p.fetches() != 4 || p.most != 1 {
			t.Errorf("%d fetches in 35 seconds, %d at once; want 4 and 1", p.fetches(), p.most)
		}
		for i := 1; i < len(p.times); i++ {
			if gap := p.times[i].Sub(p.times[i-1]); gap < 10*time.Second {
				t.Errorf("a fetch %v after the last one", gap)
			}
		}
	})
}

// A token with a new key is accepted at once, and one with a known key never
// waits for the fetch.
func TestRotationAtProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := newPair(t, jwtauth.ES256, "old", 0), newPair(t, jwtauth.ES256, "new", 0)
		p := &provider{}
		p.publish(old.jwk)
		v := trusting(t, p, nil)
		if got := outcome(t, v, tokenOf(t, old, issuer)); got != "" {
			t.Fatal(got)
		}
		time.Sleep(time.Minute)
		p.publish(old.jwk, fresh.jwk)
		if got := outcome(t, v, tokenOf(t, fresh, issuer)); got != "" || p.fetches() != 2 {
			t.Errorf("a new key: %q after %d fetches", got, p.fetches())
		}

		// The set is old: a token with a known key starts a fetch and does not
		// wait.
		time.Sleep(time.Hour)
		p.set(func() { p.silent = true })
		before := time.Now()
		if got := outcome(t, v, tokenOf(t, old, issuer)); got != "" || time.Since(before) != 0 {
			t.Errorf("a known key: %q after %v", got, time.Since(before))
		}
		synctest.Wait()
		if p.fetches() != 3 {
			t.Errorf("%d fetches, want 3", p.fetches())
		}
		// An unknown key waits for that fetch, which ends after 10 seconds.
		unknown := tokenOf(t, newPair(t, jwtauth.ES256, "x", 0), issuer)
		if got := outcome(t, v, unknown); got != wsauth.ReasonUnavailable || time.Since(before) != 10*time.Second {
			t.Errorf("an unknown key: %q after %v", got, time.Since(before))
		}
		if got := outcome(t, v, tokenOf(t, old, issuer)); got != "" {
			t.Errorf("a known key of the last set: %q", got)
		}
	})
}

// Verify returns when its context ends. The fetch goes on for the others.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newPair(t, jwtauth.ES256, "k1", 0)
		p := &provider{silent: true}
		v := trusting(t, p, nil)
		token := tokenOf(t, k, issuer)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := v.Verify(ctx, token, now)
		if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := v.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Refresh: %v after %v", err, time.Since(start))
		}
		if got := outcome(t, v, token); got != wsauth.ReasonUnavailable || time.Since(start) != 10*time.Second || p.fetches() != 1 {
			t.Errorf("another caller: %q after %v and %d fetches", got, time.Since(start), p.fetches())
		}
	})
}

// While the provider is down, the last keys stay in force until MaxStale.
// After it, nothing can be decided, until the provider is back.
func TestProviderDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newPair(t, jwtauth.ES256, "k1", 0)
		p := &provider{}
		p.publish(k.jwk)
		var log bytes.Buffer
		v := trusting(t, p, func(c *jwtauth.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		token, unknown := tokenOf(t, k, issuer), tokenOf(t, newPair(t, jwtauth.ES256, "x", 0), issuer)
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		id, err := v.Verify(t.Context(), token, now)
		if err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.down = true })
		for range 24 {
			if got := outcome(t, v, token); got != "" {
				t.Fatalf("a known key: %q", got)
			}
			if got := outcome(t, v, unknown); got != wsauth.ReasonUnavailable && p.fetches() > 1 {
				t.Fatalf("an unknown key: %q", got)
			}
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		if got := outcome(t, v, token); got != wsauth.ReasonUnavailable {
			t.Errorf("after a day: %q", got)
		}
		if _, ok := v.ValidAt(id, now); !ok {
			t.Error("the open sessions have ended")
		}
		// Within the floor, the last failure counts.
		n := p.fetches()
		if got := outcome(t, v, token); got != wsauth.ReasonUnavailable || p.fetches() != n {
			t.Errorf("within the floor: %q after %d fetches more", got, p.fetches()-n)
		}
		if err := v.Refresh(t.Context()); err == nil || p.fetches() != n {
			t.Errorf("Refresh within the floor: %v after %d fetches more", err, p.fetches()-n)
		}
		if !strings.Contains(log.String(), "connection refused") || !strings.Contains(log.String(), issuer) {
			t.Errorf("the log says nothing: %s", log.String())
		}
		p.set(func() { p.down = false })
		time.Sleep(11 * time.Second)
		if got := outcome(t, v, token); got != "" {
			t.Errorf("after the provider is back: %q", got)
		}
	})
}

// A key that vanishes from the set ends the sessions that it authenticated, and
// no others. A key that stays keeps them, even under a later fetch.
func TestWithdrawnKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays, goes := newPair(t, jwtauth.ES256, "stays", 0), newPair(t, jwtauth.EdDSA, "goes", 0)
		p := &provider{}
		p.publish(stays.jwk, goes.jwk)
		v := trusting(t, p, nil)
		changes := 0
		v.Watch(func() { changes++ })
		var ids []wsauth.Identity
		for _, k := range []pair{stays, goes} {
			id, err := v.Verify(t.Context(), tokenOf(t, k, issuer), now)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		valid := func() (list [2]bool) {
			for i, id := range ids {
				_, list[i] = v.ValidAt(id, now)
			}
			return list
		}
		refresh := func() {
			time.Sleep(time.Minute)
			if err := v.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refresh()
		if valid() != [2]bool{true, true} || changes != 0 {
			t.Errorf("the same set again: %v, %d changes", valid(), changes)
		}
		p.set(func() { p.down = true })
		time.Sleep(time.Minute)
		if err := v.Refresh(t.Context()); err == nil || valid() != [2]bool{true, true} {
			t.Errorf("down: %v %v", valid(), err)
		}
		p.set(func() { p.down = false })
		p.publish(stays.jwk)
		refresh()
		if valid() != [2]bool{true, false} || changes != 1 {
			t.Errorf("a set without the key: %v, %d changes", valid(), changes)
		}
		if got := outcome(t, v, tokenOf(t, goes, issuer)); got != wsauth.ReasonKey {
			t.Errorf("a token of the key: %q", got)
		}
		// The same ID with another key is another key.
		p.publish(newPair(t, jwtauth.ES256, "stays", 0).jwk)
		refresh()
		if valid() != [2]bool{false, false} || changes != 2 {
			t.Errorf("a set with another key under the ID: %v, %d changes", valid(), changes)
		}
	})
}

// Run fetches each interval, sooner after failures, and returns with its
// context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		p.publish(newPair(t, jwtauth.ES256, "k1", 0).jwk)
		v := trusting(t, p, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { v.Run(ctx); close(ended) }()
		time.Sleep(3 * time.Hour)
		if n := p.fetches(); n < 11 || n > 14 {
			t.Errorf("%d fetches in 3 hours, want about 12", n)
		}
		p.set(func() { p.down, p.times = true, nil })
		time.Sleep(3 * time.Hour)
		if n := p.fetches(); n < 14 || n > 22 {
			t.Errorf("%d fetches in 3 hours of failure, want about 18", n)
		}
		for i := 1; i < len(p.times); i++ {
			if gap := p.times[i].Sub(p.times[i-1]); gap < 10*time.Second {
				t.Errorf("a fetch %v after the last one", gap)
			}
		}
		cancel()
		<-ended
	})
}

// A token without "kid" is verified by the only key of its algorithm.
func TestTokenWithoutKeyID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newPair(t, jwtauth.ES256, "a", 0), newPair(t, jwtauth.ES256, "b", 0), newPair(t, jwtauth.EdDSA, "c", 0)
		d := newPair(t, jwtauth.ES384, "", 0)
		p := &provider{}
		p.publish(a.jwk, b.jwk, c.jwk, d.with(map[string]any{"kid": nil}))
		v := trusting(t, p, nil)
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			key  pair
			want wsauth.Reason
		}{{a, wsauth.ReasonKey}, {c, ""}, {d, ""}} {
			row.key.jwk = row.key.with(map[string]any{"kid": nil})
			if got := outcome(t, v, tokenOf(t, row.key, issuer)); got != row.want {
				t.Errorf("%s: %q, want %q", row.key.alg, got, row.want)
			}
		}
	})
}
