package refresh_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// Devices that stay for months on access tokens of minutes.
func ExampleIssuer() {
	tokens, err := wsauth.NewHS256(wsauth.HS256Config{
		Keys:    []wsauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Devices: []string{"pi-1"},
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
			ended := gate.Revoke(r.Family.Device, r.IssuedBefore)
			fmt.Println(r.Reason, "by", r.Family.Device, "so", ended, "sessions ended")
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/auth/refresh", issuer.Handler())

	ctx, now := context.Background(), time.Now()
	first, err := issuer.IssueAt(ctx, refresh.Grant{Device: "pi-1"}, now) // for the device's owner to put there
	if err != nil {
		log.Fatal(err)
	}
	second, err := issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now)
	fmt.Println("used:", err)
	again, err := issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now.Add(10*time.Second))
	fmt.Println("answer lost:", err, again == second)
	_, err = issuer.RefreshAt(ctx, first.RefreshToken, wsauth.Peer{}, now.Add(time.Minute))
	fmt.Println("used again later:", err)
	_, err = issuer.RefreshAt(ctx, second.RefreshToken, wsauth.Peer{}, now.Add(time.Minute))
	fmt.Println("its successor:", err)
	// Output:
	// used: <nil>
	// answer lost: <nil> true
	// reused by pi-1 so 0 sessions ended
	// used again later: wsauth: token refused: reused
	// its successor: wsauth: token refused: unknown
}
