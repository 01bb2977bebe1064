package bench_test

//lint:file-ignore SA1019 jwx/v2 is deprecated, and wsauth uses it.

import (
	"bytes"
	"encoding/base64"
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
	tokenSecret = []byte("a secret of the benchmarks, long enough for one")
	tokenTime   = time.Unix(1_800_000_000, 0)
	devices     = map[string]bool{"pi-1": true, "pi-2": true}
	errDevice   = errors.New("device is not on the list")
)

// verify is one library, configured to make the checks of wsauth: the algorithm
// is HS256, "exp" is present and in the future, and "device" is on the list.
type verify struct {
	name string
	f    func(token []byte) error
}

func verifiers(tb testing.TB) []verify {
	ours, err := jwtauth.New(jwtauth.Config{
		Keys: []jwtauth.Key{{Secret: tokenSecret}}, Devices: []string{"pi-1", "pi-2"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	type claims struct {
		jwt.RegisteredClaims
		Device string `json:"device"`
	}
	clock := func() time.Time { return tokenTime }
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(clock))
	key := func(*jwt.Token) (any, error) { return tokenSecret, nil }
	return []verify{
		{"relayguard", func(token []byte) error {
			_, err := ours.VerifyAt(token, tokenTime)
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
			t, err := jwxjwt.Parse(token, jwxjwt.WithKey(jwa.HS256, tokenSecret),
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

func sign(tb testing.TB, secret []byte, claims jwt.MapClaims) []byte {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(token)
}

func validToken(tb testing.TB) []byte {
	now := tokenTime.Unix()
	return sign(tb, tokenSecret, jwt.MapClaims{"device": "pi-1", "exp": now + 3600, "iat": now, "jti": "0123456789"})
}

// All libraries decide alike. Otherwise the comparison would mean nothing.
func TestVerifiersAgree(t *testing.T) {
	now := tokenTime.Unix()
	other := slices.Clone(tokenSecret)
	other[0]++
	for _, v := range verifiers(t) {
		if err := v.f(validToken(t)); err != nil {
			t.Errorf("%s refuses a valid token: %v", v.name, err)
		}
		for what, token := range map[string][]byte{
			"another key":         sign(t, other, jwt.MapClaims{"device": "pi-1", "exp": now + 3600}),
			"an expired token":    sign(t, tokenSecret, jwt.MapClaims{"device": "pi-1", "exp": now - 1}),
			"a token without exp": sign(t, tokenSecret, jwt.MapClaims{"device": "pi-1"}),
			"another device":      sign(t, tokenSecret, jwt.MapClaims{"device": "pi-3", "exp": now + 3600}),
			"text":                []byte(textToken),
			"an unsigned token":   unsignedToken(t),
		} {
			if v.f(token) == nil {
				t.Errorf("%s accepts %s", v.name, what)
			}
		}
	}
}

// textToken is a text that is not a token, but as long as one.
const textToken = "Lorem.ipsum.dolor.sit.amet,.consectetur.adipiscing.elit.sed.do.eiusmod.tempor.incididunt.ut.labore." +
	"et.dolore.magna.aliqua.Ut.enim.ad.minim.veniam.quis.nostrud.exercitation.ullamco"

// unsignedToken returns the valid token with the algorithm "none" in its
// header.
func unsignedToken(tb testing.TB) []byte {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	_, rest, ok := bytes.Cut(validToken(tb), []byte("."))
	if !ok {
		tb.Fatal("a token without dots")
	}
	return append([]byte(header+"."), rest...)
}

// BenchmarkVerify lets the libraries take turns, so that other load on the
// machine affects all of them alike. It reports medians of the turns: the time
// of each library, and that time divided by wsauth's.
//
//	go test -run '^$' -bench Verify -benchtime 2000x ./bench/
func BenchmarkVerify(b *testing.B) {
	const turn = 50
	for _, row := range []struct {
		name  string
		token []byte
	}{
		{"valid", validToken(b)},
		{"garbage/text", []byte(textToken)},
		{"garbage/unsigned", unsignedToken(b)},
	} {
		b.Run(row.name, func(b *testing.B) {
			token := row.token
			libraries := verifiers(b)
			times := make([][]float64, len(libraries))
			for b.Loop() {
				for i, v := range libraries {
					start := time.Now()
					for range turn {
						if (v.f(token) == nil) != (row.name == "valid") {
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
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
