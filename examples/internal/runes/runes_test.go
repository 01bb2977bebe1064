package runes_test

import (
	"testing"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/runes"
)

func TestUnfinished(t *testing.T) {
	for _, row := range []struct {
		text string
		want int
		why  string
	}{
		{"", 0, "no text"},
		{"abc", 0, "ASCII"},
		{"é", 0, "two bytes, complete"},
		{"a\xc3", 1, "the first of two bytes"},
		{"€", 0, "three bytes, complete"},
		{"€\xe2\x82", 2, "two of three bytes"},
		{"\xf0\x9f\x98", 3, "three of four bytes, and nothing before"},
		{"😀", 0, "four bytes, complete"},
		{"\x98\x98\x98\x98", 0, "bytes that continue nothing: no more bytes help"},
		{"\xf0\x9f\x98\x80\x98", 0, "a byte too many"},
		{"\xff", 0, "a byte that begins no character"},
		{"\xe2a", 0, "the character after it has begun"},
	} {
		if got := runes.Unfinished([]byte(row.text)); got != row.want {
			t.Errorf("%q (%s): %d, want %d", row.text, row.why, got, row.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, row := range []struct {
		s    string
		n    int
		want string
		why  string
	}{
		{"", 0, "", "no text"},
		{"abc", 3, "abc", "as long as it may be"},
		{"abc", 2, "ab", "ASCII"},
		{"aé", 2, "a", "within a character of two bytes"},
		{"é€", 4, "é", "within a character of three bytes"},
		{"é€", 2, "é", "between two characters"},
		{"😀", 3, "", "the first character is too long"},
		{"é", 0, "", "no byte"},
	} {
		if got := runes.Cut(row.s, row.n); got != row.want {
			t.Errorf("%q, %d (%s): %q, want %q", row.s, row.n, row.why, got, row.want)
		}
	}
}

// Any part of a text is whole characters after the bytes that Unfinished counts
// are left out, and so is what Cut returns.
func FuzzWhole(f *testing.F) {
	f.Add("aé€😀", 5)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if !utf8.ValidString(s) || n < 0 || n > len(s) {
			t.Skip()
		}
		part := s[:n]
		if whole := part[:n-runes.Unfinished([]byte(part))]; !utf8.ValidString(whole) || whole != runes.Cut(s, n) {
			t.Errorf("%q, %d: %q and %q", s, n, whole, runes.Cut(s, n))
		}
	})
}
