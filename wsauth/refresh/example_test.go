package refresh_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// A device refreshes, refreshes again because the answer was lost, and then a
// thief uses the old token.
func Example() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: tokens})
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := refresh.New(refresh.Config{
		Signer: tokens,
		OnRevoked: func(r refresh.Revocation) {
			ended := gate.Revoke(r.Family.Subject, r.IssuedBefore)
			fmt.Println("revoked:", r.Reason, "by", r.Family.Subject, "-", ended, "sessions ended")
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/auth/refresh", issuer.Handler())

	ctx, now := context.Background(), time.Now()
	first, err := issuer.IssueAt(ctx, refresh.Grant{Subject: "pi-1", Scope: []string{"publish"}}, now) // put it on the device
	if err != nil {
		log.Fatal(err)
	}
	second, err := issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now)
	fmt.Println("first use:", err)
	again, err := issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now.Add(10*time.Second))
	fmt.Println("again within the grace:", err, again == second)
	_, err = issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now.Add(time.Minute))
	fmt.Println("again after the grace:", err)
	_, err = issuer.RefreshAt(ctx, second.RefreshToken, wsauth.Peer{}, now.Add(time.Minute))
	fmt.Println("its successor:", err)
	// Output:
	// first use: <nil>
	// again within the grace: <nil> true
	// revoked: reused by pi-1 - 0 sessions ended
	// again after the grace: wsauth: token refused: reused
	// its successor: wsauth: token refused: unknown
}
