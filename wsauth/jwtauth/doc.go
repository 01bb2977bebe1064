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
//     client ID of the service, or, for access tokens, its name at the
//     provider.
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
// # Which tokens
//
// A provider signs tokens for all its services, and several kinds of them, with
// the same keys. So always set [Config].Audience for a provider. If its access
// tokens have a type of their own, set [Config].Type too, so that an ID token
// is not taken for one (RFC 8725, section 3.11).
//
// A subject is unique only within its issuer. If there are several providers,
// decide by [wsauth.Identity].Issuer and Subject together, as
// [Config].SubjectAllowed can.
//
// The permissions of an identity are the words of its scope, or, with
// [Config].Roles, those of its roles.
//
// # Keys of a provider
//
// They are fetched when the first token arrives, when a token names an unknown
// key, when one without "kid" has a signature of no known key, and every
// [Config].RefreshInterval while [Verifier.Run] runs. Between two fetches from
// one provider there are at least [Config].MinRefreshInterval, whatever tokens
// strangers send, and two never run at the same time. A fetch takes at most 10
// seconds, and reads at most 512 KiB and 64 keys. It uses https, and follows no
// redirect.
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
// serialization with canonical base64url. It refuses "crit" and "b64", refuses
// a header or claims in which a name occurs twice, and requires "exp" as a
// positive integer. Text without the form of a token is refused without an
// allocation and before any signature is computed. An [*wsauth.Error] contains
// claims only if the signature is valid; its Detail names the claim that is
// wrong, and never contains a value.
//
// Signatures are computed by jwx, and PS256 by the standard library, because
// jwx accepts a salt of any length. Only the file jwx.go uses it.
//
// # Cost
//
// The table gives the time that other libraries need for the same checks, as a
// multiple of the time that this package needs, in November 2026. The ranges
// are those of four runs of this command in examples/interop. The columns
// "allocs" give numbers of allocations, here and there.
//
//	go test ./bench -run '^$' -bench Verify -benchtime 500x
//
//	                           golang-jwt v5  allocs   jwx v2's jwt.Parse
//	HS256                      3.6 to 3.8     11, 48   11.9 to 12.6
//	HS384                      2.5 to 2.7     11, 48   7.3 to 8.0
//	HS512                      2.5 to 2.6     11, 48   7.3 to 8.4
//	RS256                      1.14 to 1.22   16, 53   1.6 to 1.8
//	PS256                      1.12 to 1.21   18, 57   1.5 to 1.8
//	ES256                      1.07 to 1.11   28, 65   1.3 to 1.5
//	ES384                      1.01 to 1.05   38, 72   1.1 to 1.3
//	EdDSA                      1.10 to 1.14   6, 42    1.4 to 1.6
//	garbage: text              18 to 24       0, 8     20 to 21
//	garbage: unsigned, "none"  23 to 28       0, 45    28 to 34
//
// With public keys, nearly all of the time is the arithmetic of the standard
// library, which all three use. Garbage takes less than a microsecond.
package jwtauth
