package envcheck_test

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
)

// The reasons for which Strong refuses a secret that is long enough.
const (
	unprintable = "must consist of printable characters, without spaces at its ends"
	repetitive  = "repeats the same characters; make a random secret with: openssl rand -base64 32"
	sequential  = "follows the alphabet or the rows of a keyboard; make a random secret with: openssl rand -base64 32"
	placeholder = "is a placeholder; make a random secret with: openssl rand -base64 32"
)

func TestStrong(t *testing.T) {
	const short envcheck.CheckReason = "must have at least 32 characters"
	for _, row := range []struct {
		why    string
		secret string
		want   envcheck.CheckReason // empty if Strong accepts the secret
	}{
		{"hex of 16 bytes", "9a3f6c1e8b2d7f405c6e1a9b3d8f2047", ""},
		{"base64 of 32 bytes", "yLW0SeVJ2yW0GgMTVb2nWpTM7Xh0kb1k9fJ8bIEd8tM=", ""},
		{"URL-safe base64", "Jx_q1-Yw8kZrT3mVd5Bn7PcL0sXhGfUoAeRtQvIy2Nk", ""},
		{"a UUID without dashes", "f47ac10b58cc4372a5670e02b2c3d479", ""},
		{"punctuation of a password manager", "v}8&Rk!w2Zp^T#m5Lq@x7Gc*Ej9$Ny4(", ""},
		{"eight words of dice", "plaza-umbrella-gravy-fossil-yonder-quilt-mango-tunic", ""},
		{"letters of another script", "ключ-от-дома-где-живёт-рыжий-кот-и-ёж", ""},

		{"empty", "", short},
		{"one too short", key[1:], short},
		{"characters count, not bytes", strings.Repeat("é", 31), short},
		{"a line end inside", key[:16] + "\n" + key[16:], unprintable},
		{"a space before", " " + key, unprintable},
		{"a space behind", key + " ", unprintable},
		{"control characters", key + "\x1b[2J", unprintable},
		{"invisible", key + "\u200b", unprintable},

		{"one letter", strings.Repeat("x", 40), repetitive},
		{"two in turn", strings.Repeat("ab", 20), repetitive},
		{"a word again and again", strings.Repeat("password", 5), repetitive},
		{"all kinds of characters, again and again", strings.Repeat("Aa1!", 8), repetitive},
		{"in other case", "XkQ9vT2mxKq9VT2MXKQ9VT2Mxkq9vt2m", repetitive},
		{"short and doubled", "kW7#pQ2xkW7#pQ2xkW7#pQ2xkW7#pQ2x", repetitive},
		{"dead beef", strings.Repeat("deadbeef", 4), repetitive},
		{"four letters, though never the same stretch", "aabbaabcaabdaacbaaccaacdaadbaadc", repetitive},
		{"few characters in any order", "aabbaabababbabcabcbabcaabcbabcdd", repetitive},

		{"the alphabet", "abcdefghijklmnopqrstuvwxyz012345", sequential},
		{"downwards", "zyxwvutsrqponmlkjihgfedcba987654", sequential},
		{"hexadecimal digits", "0123456789abcdef0123456789abcdef", sequential},
		{"digits", "12345678901234567890123456789012", repetitive},
		{"rows of a keyboard", "qwertyuiopasdfghjklzxcvbnmqwerty", sequential},
		{"rows backwards", "poiuytrewqlkjhgfdsamnbvcxz098765", sequential},
		{"rows of a German one", "qwertzuiopasdfghjklyxcvbnm123456", sequential},
		{"columns", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9", sequential},
		{"zigzag", "1q2w3e4r5t6y7u8i9o0p1q2w3e4r5t6y", sequential},
		{"two in turn", "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6", sequential},
		{"doubled", "00112233445566778899aabbccddeeff", sequential},

		{"the guide's own example", "your-very-long-secure-random-string-here-32-chars-minimum", placeholder},
		{"known from container images", "!ChangeThisMercureHubJWTSecretKey!", placeholder},
		{"Supabase's", "super-secret-jwt-token-with-at-least-32-characters-long", placeholder},
		{"jwt.io's", "a-string-secret-at-least-256-bits-long", placeholder},
		{"jwt.io's older one", "your-256-bit-secret-for-jwt-signing", placeholder},
		{"instructions", "<generate with openssl rand -base64 32>", placeholder},
		{"underscores", "REPLACE_WITH_A_32_CHARACTER_SECRET_KEY", placeholder},
		{"no separators", "thisisaverysecretkeythatnobodyknows", placeholder},
		{"digits for letters", "ch4ng3m3-pl34s3-t0-s0m3th1ng-s3cur3", placeholder},
		{"a year does not help", "MyApp-supersecret-jwt-key-for-production-2026", placeholder},
		{"nor do numbers behind it", "changeme-changethis-secret-123456", placeholder},
		{"well meant", "insecure-development-secret-do-not-use", placeholder},
		{"the comic's", "correct horse battery staple correct", placeholder},
		{"filler text", "loremipsumdolorsitametconsectetur", placeholder},
		{"pangram", "thequickbrownfoxjumpsoverthelazydog", placeholder},
	} {
		err := envcheck.Strong(32)(row.secret)
		if got, _ := err.(envcheck.CheckReason); got != row.want || (err == nil) != (row.want == "") {
			t.Errorf("%s: %q: %v, want %q", row.why, row.secret, err, row.want)
		}
	}
}

// A short n does not make a weak secret strong.
func TestStrongOfFewCharacters(t *testing.T) {
	for _, row := range []struct {
		why    string
		secret string
		ok     bool
	}{
		{"of no length", "", false},
		{"of one character", "x", false},
		{"a known word", "changeme", false},
		{"random, and short enough to be tried out", "9a3f6c1e", false},
		{"a placeholder", "changeme-changeme", false},
		{"a word again and again", "secretsecretsecret", false},
		{"16 random digits", "9a3f6c1e8b2d7f40", true},
	} {
		for _, n := range []int{-1, 0, 1, 2, 4, 8, 15, 16} {
			if err := envcheck.Strong(n)(row.secret); (err == nil) != row.ok {
				t.Errorf("Strong(%d), %s: %v", n, row.why, err)
			}
		}
	}
}

// Strong accepts the secrets that generators make.
func TestStrongAcceptsRandom(t *testing.T) {
	n := 3_000
	if testing.Short() {
		n = 300
	}
	for range n {
		b := make([]byte, 32)
		rand.Read(b)
		for _, s := range []string{
			hex.EncodeToString(b[:16]), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b[:24]),
			base64.RawURLEncoding.EncodeToString(b), base32.StdEncoding.EncodeToString(b[:20]), rand.Text() + rand.Text(),
		} {
			if err := envcheck.Strong(32)(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
}

func FuzzStrong(f *testing.F) {
	for _, s := range []string{"", key, "your-256-bit-secret-for-jwt-signing", "\xff", strings.Repeat("é", 40), "@@@@$$$$0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := envcheck.Strong(32)(s)
		if err == nil && (len(s) < 32 || strings.ContainsAny(s, "\n\r\x00")) {
			t.Fatalf("accepted %q", s)
		}
		if strong := envcheck.Strong(8)(s); err == nil && strong != nil {
			t.Fatalf("%q is good for 32 and not for 8: %v", s, strong)
		}
	})
}
