package redisauth_test

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/redisauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// One node of several. All of them have the same engine and the same keys.
func Example() {
	ctx := context.Background()
	key := []byte(os.Getenv("AUTH_KEY")) // 32 random bytes
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	shared, err := redisauth.New(redisauth.Config{
		Client: client, Key: key, Node: "node-1",
		OnState: func(err error) { log.Print("engine: ", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shared.Close() // frees the sessions of this node

	tokens, err := jwtauth.New(jwtauth.Config{
		Keys: []jwtauth.Key{{Secret: []byte(os.Getenv("JWT_SECRET"))}}, Subjects: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: tokens, Shared: shared, MaxSessions: 1})
	if err != nil {
		log.Fatal(err)
	}
	go gate.Run(ctx)
	issuer, err := refresh.New(refresh.Config{
		Signer: tokens, Store: shared.Families(), Key: key,
		OnRevoked: func(r refresh.Revocation) { gate.Revoke(r.Family.Subject, r.IssuedBefore) },
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/auth/refresh", issuer.Handler())
	log.Fatal(http.ListenAndServe("localhost:3000", nil))
}
