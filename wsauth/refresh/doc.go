// Package refresh issues refresh tokens for package wsauth. A client, such as a
// device or the app of a user, exchanges each refresh token once for a new pair
// of a short-lived access token and the next refresh token. So it can stay
// connected for months with access tokens that expire within minutes.
//
// This program prints a first pair and serves the exchange:
//
//	package main
//
//	import (
//		"context"
//		"fmt"
//		"log"
//		"net/http"
//		"os"
//
//		"github.com/relayguard/relayguard/wsauth/jwtauth"
//		"github.com/relayguard/relayguard/wsauth/refresh"
//	)
//
//	func main() {
//		tokens, err := jwtauth.New(jwtauth.Config{
//			Keys:     []jwtauth.Key{{Secret: []byte(os.Getenv("JWT_SECRET"))}},
//			Subjects: []string{"pi-1"},
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//		issuer, err := refresh.New(refresh.Config{Signer: tokens})
//		if err != nil {
//			log.Fatal(err)
//		}
//		grant := refresh.Grant{Subject: "pi-1", Scope: []string{"publish"}}
//		pair, err := issuer.Issue(context.Background(), grant)
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(pair.Token, pair.RefreshToken)
//		http.Handle("/auth/refresh", issuer.Handler())
//		log.Fatal(http.ListenAndServe("localhost:3000", nil))
//	}
//
// In a server, set [Config].Store, so that devices can go on after a restart,
// and [Config].OnRevoked, so that a revocation ends the open sessions. For the
// choice of lifetimes, and for what to do when a secret has leaked, see package
// wsauth.
//
// # Families
//
// A family is a first pair and all pairs that follow from it. A refresh token
// is invalid after its use (RFC 9700, section 4.14.2). If it is used again
// after the grace, or after its successor was used, two clients have it: the
// rightful client and a thief. The Issuer cannot know which one is the thief,
// so it revokes the family.
//
// # Stores that forget
//
// A store may lose its newest changes: a replica is promoted that has not got
// them, or a backup is restored. The device then has a token that the store
// does not know, and that looks like the token of a thief. Set [Config].Key,
// and each refresh token proves how many came before it. A token that is newer
// than the store is accepted as the newest one; an older one still revokes the
// family. For several processes with one store, such as that of
// wsauth/redisauth, all of them need the same Key.
//
// # What a token contains
//
// A refresh token is random bytes without meaning. The store contains only
// their SHA-256. A slow hash, as for passwords, would add no safety: it makes
// guessing slow among the few texts that people choose, but no one can guess
// one of 2²⁵⁶ values at any speed. It would only let strangers cause work for
// the server.
package refresh
