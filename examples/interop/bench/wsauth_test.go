package bench_test

//lint:file-ignore SA1019 jwx/v2 is deprecated, and jwtauth uses it.

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwa"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var (
	tokenTime = time.Unix(1_800_000_000, 0)
	devices   = map[string]bool{"pi-1": true, "pi-2": true}
	errDevice = errors.New("device is not on the list")
)

var algorithms = []string{
	jwtauth.HS256, jwtauth.HS384, jwtauth.HS512, jwtauth.RS256, jwtauth.PS256, jwtauth.ES256, jwtauth.ES384, jwtauth.EdDSA,
}

// newPair returns a key that signs and one that verifies. For HMAC they are the
// same.
func newPair(tb testing.TB, alg string) (private, public any) {
	var signer crypto.Signer
	var err error
	switch alg {
	case jwtauth.HS256, jwtauth.HS384, jwtauth.HS512:
		secret := make([]byte, 64)
		_, _ = rand.Read(secret)
		return secret, secret
	case jwtauth.RS256, jwtauth.PS256:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case jwtauth.ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jwtauth.ES384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case jwtauth.EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return signer, signer.Public()
}

func ringKey(tb testing.TB, alg string, public any) jwtauth.Key {
	if secret, ok := public.([]byte); ok {
		return jwtauth.Key{Algorithm: alg, Secret: secret}
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return jwtauth.Key{Algorithm: alg, PEM: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
}

// verify is one library, configured to make the checks of jwtauth: the
// algorithm is alg, "exp" is present and in the future, and "device" is on the
// list.
type verify struct {
	name string
	f    func(token []byte) error
}

func verifiers(tb testing.TB, alg string, public any) []verify {
	ours, err := jwtauth.New(jwtauth.Config{
		Keys: []jwtauth.Key{ringKey(tb, alg, public)}, SubjectClaim: "device", Subjects: []string{"pi-1", "pi-2"},
		Roles: map[string][]string{"publisher": {wsauth.Publish}}, DefaultRole: "publisher",
	})
	if err != nil {
		tb.Fatal(err)
	}
	type claims struct {
		jwt.RegisteredClaims
		Device string `json:"device"`
	}
	clock := func() time.Time { return tokenTime }
	parser := jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(clock))
	key := func(*jwt.Token) (any, error) { return public, nil }
	return []verify{
		{"relayguard", func(token []byte) error {
			_, err := ours.Verify(tb.Context(), token, tokenTime)
			return err
		}},
		{"golang-jwt", func(token []byte) error {
			var c claims
			if _, err := parser.ParseWithClaims(string(token), &c, key); err != nil {
				return err
			}
			if !devices[c.Device] {
				return errDevice
			}
			return nil
		}},
		{"jwx", func(token []byte) error {
			t, err := jwxjwt.Parse(token, jwxjwt.WithKey(jwa.SignatureAlgorithm(alg), public),
				jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithClock(jwxjwt.ClockFunc(clock)))
			if err != nil {
				return err
			}
			if d, _ := t.Get("device"); d == nil || !devices[d.(string)] {
				return errDevice
			}
			return nil
		}},
	}
}

func sign(tb testing.TB, alg string, private any, claims jwt.MapClaims) []byte {
	token, err := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims).SignedString(private)
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(token)
}

func validToken(tb testing.TB, alg string, private any) []byte {
	now := tokenTime.Unix()
	return sign(tb, alg, private, jwt.MapClaims{"device": "pi-1", "exp": now + 3600, "iat": now, "jti": "0123456789"})
}

// All libraries decide alike. Otherwise the comparison would mean nothing.
func TestVerifiersAgree(t *testing.T) {
	now := tokenTime.Unix()
	for _, alg := range algorithms {
		private, public := newPair(t, alg)
		other, _ := newPair(t, alg)
		valid := validToken(t, alg, private)
		for _, v := range verifiers(t, alg, public) {
			if err := v.f(valid); err != nil {
				t.Errorf("%s, %s: refuses a valid token: %v", alg, v.name, err)
			}
			for what, token := range map[string][]byte{
				"another key":         sign(t, alg, other, jwt.MapClaims{"device": "pi-1", "exp": now + 3600}),
				"an expired token":    sign(t, alg, private, jwt.MapClaims{"device": "pi-1", "exp": now - 1}),
				"a token without exp": sign(t, alg, private, jwt.MapClaims{"device": "pi-1"}),
				"another device":      sign(t, alg, private, jwt.MapClaims{"device": "pi-3", "exp": now + 3600}),
				"text":                []byte(textToken),
				"an unsigned token":   unsigned(t, valid),
			} {
				if v.f(token) == nil {
					t.Errorf("%s, %s: accepts %s", alg, v.name, what)
				}
			}
		}
	}
}

// textToken is a text that is not a token, but as long as one.
const textToken = "Lorem.ipsum.dolor.sit.amet,.consectetur.adipiscing.elit.sed.do.eiusmod.tempor.incididunt.ut.labore." +
	"et.dolore.magna.aliqua.Ut.enim.ad.minim.veniam.quis.nostrud.exercitation.ullamco"

// unsigned returns the token with the algorithm "none" in its header.
func unsigned(tb testing.TB, token []byte) []byte {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	_, rest, ok := bytes.Cut(token, []byte("."))
	if !ok {
		tb.Fatal("a token without dots")
	}
	return append([]byte(header+"."), rest...)
}

// BenchmarkVerify lets the libraries take turns, so that other load on the
// machine affects all of them alike. It reports medians of the turns: the time
// of each library, and that time divided by jwtauth's.
//
//	go test -run '^$' -bench Verify -benchtime 500x ./bench/
func BenchmarkVerify(b *testing.B) {
	for _, alg := range algorithms {
		private, public := newPair(b, alg)
		takeTurns(b, "valid/"+alg, verifiers(b, alg, public), validToken(b, alg, private), true)
	}
	private, public := newPair(b, jwtauth.HS256)
	libraries := verifiers(b, jwtauth.HS256, public)
	takeTurns(b, "garbage/text", libraries, []byte(textToken), false)
	takeTurns(b, "garbage/unsigned", libraries, unsigned(b, validToken(b, jwtauth.HS256, private)), false)
}

func takeTurns(b *testing.B, name string, libraries []verify, token []byte, valid bool) {
	const turn = 20
	b.Run(name, func(b *testing.B) {
		times := make([][]float64, len(libraries))
		for b.Loop() {
			for i, v := range libraries {
				start := time.Now()
				for range turn {
					if (v.f(token) == nil) != valid {
						b.Fatal("decided wrongly: ", v.name)
					}
				}
				times[i] = append(times[i], float64(time.Since(start))/turn)
			}
		}
		b.ReportMetric(0, "ns/op")
		ours := median(times[0])
		for i, v := range libraries {
			b.ReportMetric(median(times[i]), "ns/"+v.name)
			if i > 0 {
				b.ReportMetric(median(times[i])/ours, v.name+"/relayguard")
			}
		}
		for _, v := range libraries {
			b.ReportMetric(testing.AllocsPerRun(100, func() { _ = v.f(token) }), "allocs/"+v.name)
		}
	})
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
