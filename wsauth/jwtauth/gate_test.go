package jwtauth_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// silent is a connection whose client says nothing.
type silent struct{}

func (silent) Read(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
func (silent) Write(context.Context, []byte) error      { return nil }
func (silent) Close(int, string) error                  { return nil }
func (silent) Abort() error                             { return nil }

// A provider that withdraws a key ends the open sessions of the key, and a
// provider that is down ends no session.
func TestProviderReachesOpenSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays, goes := newPair(t, jwtauth.ES256, "stays", 0), newPair(t, jwtauth.EdDSA, "goes", 0)
		p := &provider{}
		p.publish(stays.jwk, goes.jwk)
		v := trusting(t, p, nil)
		var revoked []string
		gate, err := wsauth.New(wsauth.Config{Verifier: v, Audit: func(e wsauth.Event) {
			if e.Kind == wsauth.EventRevoked {
				revoked = append(revoked, e.KeyID)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		attach := func(k pair) *wsauth.Session {
			s, err := gate.AttachToken(t.Context(), silent{}, wsauth.Peer{}, string(tokenOf(t, k, issuer)))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		kept, ended := attach(stays), attach(goes)
		defer kept.Close(1000, "")
		defer ended.Close(1000, "")

		p.set(func() { p.down = true })
		time.Sleep(time.Hour)
		if err := v.Refresh(t.Context()); err == nil {
			t.Error("the provider is not down")
		}
		if err := errors.Join(kept.Authorize(wsauth.Publish), ended.Authorize(wsauth.Publish)); err != nil {
			t.Error("the provider is down:", err)
		}

		p.set(func() { p.down = false })
		p.publish(stays.jwk)
		time.Sleep(time.Hour)
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := kept.Authorize(wsauth.Publish); err != nil {
			t.Error("a session of a key that stays:", err)
		}
		if ended.Authorize(wsauth.Publish) == nil || len(revoked) != 1 || revoked[0] != "goes" {
			t.Errorf("a session of a withdrawn key goes on; revoked: %q", revoked)
		}
		_, err = gate.AttachToken(t.Context(), silent{}, wsauth.Peer{}, string(tokenOf(t, goes, issuer)))
		if !errors.Is(err, wsauth.ErrAuthenticationFailed) {
			t.Error("another session of a withdrawn key:", err)
		}
	})
}
