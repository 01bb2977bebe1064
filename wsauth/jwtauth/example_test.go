package jwtauth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// One machine issues the tokens and verifies them, with one secret.
func ExampleVerifier() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{ID: "2026", Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	token, err := tokens.Sign(wsauth.ClaimSet{
		Subject: "pi-1", Scope: []string{wsauth.Publish}, ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		log.Fatal(err)
	}
	id, err := tokens.Verify(context.Background(), []byte(token), time.Now())
	fmt.Println(id.Subject, id.Can(wsauth.Publish), id.Can(wsauth.Admin), err)
	_, err = tokens.Verify(context.Background(), []byte(token+"="), time.Now())
	fmt.Println(err)
	// Output:
	// pi-1 true false <nil>
	// wsauth: token refused: malformed
}

// Anyone can write claims. Without a check of the signature, this code believes
// any sender.
func ExampleVerifier_incorrect() {
	forged := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"pi-1","exp":9999999999}`)) + "."

	var claims struct {
		Subject string `json:"sub"`
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(forged, ".")[1])
	_ = json.Unmarshal(payload, &claims)
	fmt.Println("wrong:", claims.Subject)

	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = tokens.Verify(context.Background(), []byte(forged), time.Now())
	fmt.Println("right:", err)
	// Output:
	// wrong: pi-1
	// right: wsauth: token refused: malformed
}

// Users log in at an OpenID Connect provider. The service finds the keys of the
// provider by itself.
func ExampleProvider() {
	provider, tokenOf := newExampleProvider()
	defer provider.Close()

	tokens, err := jwtauth.New(jwtauth.Config{
		Providers:  []jwtauth.Provider{{Issuer: provider.URL}}, // such as "https://id.example"
		Audience:   "chat",
		AnySubject: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	id, err := tokens.Verify(context.Background(), []byte(tokenOf("auth0|42", "read chat:write")), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id.Subject, id.Permissions)

	// A client may try again later if the provider does not answer.
	var unavailable *wsauth.UnavailableError
	fmt.Println(errors.As(err, &unavailable))
	// Output:
	// auth0|42 [read chat:write]
	// false
}

// The machine that issues tokens has the private key. The server has the public
// key only, so it holds nothing that signs.
func ExampleNewKeyPair() {
	private, public, err := jwtauth.NewKeyPair(jwtauth.ES256)
	if err != nil {
		log.Fatal(err)
	}
	workshop, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{PEM: private}}, AnySubject: true})
	if err != nil {
		log.Fatal(err)
	}
	server, err := jwtauth.New(jwtauth.Config{Keys: []jwtauth.Key{{PEM: public}}, Subjects: []string{"pi-1"}})
	if err != nil {
		log.Fatal(err)
	}
	claims := wsauth.ClaimSet{Subject: "pi-1", Scope: []string{wsauth.Publish}, ExpiresAt: time.Now().Add(time.Hour)}
	token, err := workshop.Sign(claims)
	if err != nil {
		log.Fatal(err)
	}
	id, err := server.Verify(context.Background(), []byte(token), time.Now())
	fmt.Println(id.Subject, id.Permissions, err)
	_, err = server.Sign(claims)
	fmt.Println(err)
	// Output:
	// pi-1 [publish] <nil>
	// jwtauth: the first key is not a private key or a secret
}

// newExampleProvider returns a provider on this machine, and a function that
// signs tokens in its name.
func newExampleProvider() (provider *httptest.Server, tokenOf func(subject, scope string) string) {
	var mux http.ServeMux
	provider = httptest.NewServer(&mux)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": provider.URL, "jwks_uri": provider.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":%q}]}`, examplePublic)
	})
	signer, err := jwtauth.New(jwtauth.Config{
		Keys:    []jwtauth.Key{{JWK: fmt.Appendf(nil, `{"kty":"OKP","crv":"Ed25519","kid":"k1","x":%q,"d":%q}`, examplePublic, examplePrivate)}},
		Issuers: []string{provider.URL}, Audience: "chat", AnySubject: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	return provider, func(subject, scope string) string {
		token, err := signer.Sign(wsauth.ClaimSet{Subject: subject, Scope: strings.Fields(scope), ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			log.Fatal(err)
		}
		return token
	}
}

// The key pair of RFC 8037, appendix A.1.
const (
	examplePublic  = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	examplePrivate = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
)
