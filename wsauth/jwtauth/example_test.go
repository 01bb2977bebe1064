package jwtauth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

func ExampleVerifier() {
	tokens, err := jwtauth.New(jwtauth.Config{
		Keys:     []jwtauth.Key{{ID: "2026", Secret: []byte("32 random bytes, from the environment")}},
		Subjects: []string{"pi-1"},
	})
	if err != nil {
		log.Fatal(err)
	}
	token, err := tokens.Sign(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: time.Now().Add(time.Hour), Scope: []string{wsauth.Publish}})
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
