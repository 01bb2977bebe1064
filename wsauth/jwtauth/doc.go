// Package jwtauth verifies JSON Web Tokens for package wsauth, and signs them.
// Keys are given, or fetched from an OpenID Connect provider. This program
// prints who a token belongs to:
//
//	package main
//
//	import (
//		"context"
//		"fmt"
//		"log"
//		"os"
//		"time"
//
//		"github.com/relayguard/relayguard/wsauth/jwtauth"
//	)
//
//	func main() {
//		ctx := context.Background()
//		tokens, err := jwtauth.New(jwtauth.Config{
//			Providers:  []jwtauth.Provider{{Issuer: "https://id.example"}},
//			Audience:   "chat",
//			AnySubject: true,
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//		if err := tokens.Refresh(ctx); err != nil {
//			log.Fatal(err)
//		}
//		go tokens.Run(ctx)
//		id, err := tokens.Verify(ctx, []byte(os.Args[1]), time.Now())
//		if err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(id.Issuer, id.Subject, id.Permissions)
//	}
//
// Give the [Verifier] to [wsauth.Config] as its Verifier. [wsauth.Identity] has
// the claims that every service needs; its Claims holds all of them as JSON.
//
// # Which keys
//
//   - Users of an OpenID Connect provider: [Config].Providers with the issuer.
//     The keys and their address are found by discovery. The audience is the
//     client ID of the service, or, for access tokens, its name at the provider.
//   - Tokens of a service that publishes a key set: [Provider].JWKS as well.
//   - Devices, with a key that only the machine that issues tokens has:
//     [Config].Keys with the public key. [NewKeyPair] makes a pair. A server
//     with public keys alone holds nothing that signs, so a thief of its memory
//     cannot make tokens.
//   - One machine that issues and verifies: Keys with a Secret.
//
// Every key has exactly one algorithm, and the "alg" of a token must be it. So
// a public key is never taken for a secret, and no token chooses how it is
// checked (RFC 8725, sections 2.1 and 3.1). A key of a provider verifies tokens
// of this provider only, and no other key does.
//
// # Keys of a provider
//
// They are fetched when the first token arrives, when a token names an unknown
// key, and every [Config].RefreshInterval while [Verifier.Run] runs. Between two
// fetches from one provider there are at least [Config].MinRefreshInterval,
// whatever tokens strangers send, and two never run at the same time. A fetch
// takes at most 10 seconds, and reads at most 512 KiB and 64 keys. It uses
// https, and follows no redirect.
//
// While a provider does not answer, its last keys stay in force for
// [Config].MaxStale. A token that names a key that is not among them is then
// neither accepted nor refused: Verify returns a [*wsauth.UnavailableError], so
// that a client with a fresh key is not taken for an attacker.
//
// A key that is not in the next set is withdrawn: the open sessions that
// authenticated with it end. A key of a set is skipped, with a record in
// [Config].Log, if its "use", "key_ops", "alg" or "crv" do not fit, if its
// algorithm is not in [Provider].Algorithms, or if it is private, a secret, too
// short, not on its curve, or a duplicate.
//
// # What is checked
//
// Verify is stricter than JWT libraries on purpose. It reads only the compact
// serialization with canonical base64url. It refuses "crit" and "b64", refuses a
// header or claims in which a name occurs twice, and requires "exp" as a
// positive integer. Text without the form of a token is refused without an
// allocation and before any signature is computed. An [*wsauth.Error] contains
// claims only if the signature is valid; its Detail names the claim that is
// wrong, and never contains a value.
//
// Signatures are computed by jwx, and PS256 by the standard library, because jwx
// accepts a salt of any length. Only the file jwx.go uses it.
package jwtauth
