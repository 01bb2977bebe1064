package envcheck

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The reasons for which Strong refuses a secret that is long enough.
const (
	unprintable CheckReason = "must consist of printable characters, without spaces at its ends"
	repetitive  CheckReason = "repeats the same characters; make a random secret with: openssl rand -base64 32"
	sequential  CheckReason = "follows the alphabet or the rows of a keyboard; make a random secret with: openssl rand -base64 32"
	placeholder CheckReason = "is a placeholder; make a random secret with: openssl rand -base64 32"
)

// leastStrong is the length in characters below which no secret is strong: 16
// hexadecimal digits are 64 random bits.
const leastStrong = 16

// Strong returns a check that accepts secrets of at least n characters, and
// refuses those that look typed by hand or copied from an example. If n is less
// than 16, it counts as 16. A secret needs seven different characters, or five
// if n is less than 24. At least n/2 characters must be left after Strong has
// removed repetitions, sequences, rows of a keyboard, and the words of
// placeholders, such as CHANGE-ME and your-secret-key, also if written as
// ch4ng3m3. A secret must not be in quotes.
//
// Strong does not estimate entropy: a well-known example may have as many
// different characters as a random key. Of the secrets that a random generator
// makes in hexadecimal, base32 or base64, it refuses a few in a million if they
// have 16 characters, and fewer the longer they are. It cannot recognise every
// secret that a person has made up.
func Strong(n int) func(string) error {
	n = max(n, leastStrong)
	least := 7
	if n < 24 {
		least = 5
	}
	return func(value string) error {
		if utf8.RuneCountInString(value) < n {
			return CheckReason(fmt.Sprintf("must have at least %d characters", n))
		}
		bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
		if strings.ContainsFunc(value, bad) || strings.TrimSpace(value) != value {
			return unprintable
		}
		if quoted(value) {
			return hasQuotes
		}
		text := []rune(strings.ToLower(value))
		if different(text) < least {
			return repetitive
		}
		for _, step := range []struct {
			reduce func([]rune) []rune
			reason CheckReason
		}{
			{withoutRepeats, repetitive},
			{withoutSequences, sequential},
			{withoutWords, placeholder},
		} {
			if text = step.reduce(text); len(text) < n/2 {
				return step.reason
			}
		}
		return nil
	}
}

func different(text []rune) int {
	text = slices.Clone(text)
	slices.Sort(text)
	return len(slices.Compact(text))
}

// withoutRepeats removes each run of four characters that also occurs earlier.
func withoutRepeats(text []rune) []rune {
	const stretch = 4
	drop := make([]bool, len(text))
	seen := make(map[[stretch]rune]bool)
	for i := 0; i+stretch <= len(text); i++ {
		part := [stretch]rune(text[i:])
		for j := range part {
			drop[i+j] = drop[i+j] || seen[part]
		}
		seen[part] = true
	}
	return without(text, drop)
}

// rows are the rows of common keyboards, and zigzags over two or more of them.
var rows = []*row{
	newRow("qwertyuiop"), newRow("qwertzuiop"), newRow("azertyuiop"), newRow("asdfghjkl"), newRow("qsdfghjklm"),
	newRow("zxcvbnm"), newRow("yxcvbnm"), newRow("wxcvbn"), newRow("1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p"),
	newRow("1q2w3e4r5t6y7u8i9o0p"), newRow("!@#$%^&*()_+"), newRow("1234567890"),
}

// withoutSequences removes runs of four or more characters in which each is the
// previous, the same or the next one of the alphabet or of a row of a keyboard.
// It also removes two such runs that alternate, as in aabbccdd and a1b2c3d4.
func withoutSequences(text []rune) []rune {
	drop := make([]bool, len(text))
	mark := func(stride int, follows func(a, b rune) bool) {
		start := 0
		for i := stride; i <= len(text); i++ {
			if i < len(text) && follows(text[i-stride], text[i]) {
				continue
			}
			for j := start; i-start >= 4*stride && j < i; j++ {
				drop[j] = true
			}
			start = i - stride + 1
		}
	}
	for step := rune(-1); step <= 1; step++ {
		for stride := 1; stride <= 2; stride++ {
			mark(stride, func(a, b rune) bool { return b-a == step })
		}
	}
	for _, row := range rows {
		mark(1, row.follows)
		mark(1, func(a, b rune) bool { return row.follows(b, a) })
	}
	return without(text, drop)
}

// row holds the place of each ASCII character in a row of a keyboard, from 1.
type row [unicode.MaxASCII + 1]int8

func newRow(keys string) *row {
	r := new(row)
	for i, key := range []byte(keys) {
		r[key] = int8(i + 1)
	}
	return r
}

// follows reports whether b is the key behind a.
func (r *row) follows(a, b rune) bool {
	return a <= unicode.MaxASCII && b <= unicode.MaxASCII && r[a] > 0 && r[b] == r[a]+1
}

// plain replaces digits and signs by the letters that people replace with them.
var plain = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s")

// words are the words of placeholders, examples and documentation. A random key
// contains some short ones by chance; it stays long enough without them.
var words = func() []string {
	list := strings.Fields(`
		the your our this that are was will must should shall please you them they who what nobody
		for and with from not dont does never only some any all here there know knows
		change changed changeme changeit replace replaced replaceme set insert put use enter fill add
		edit update paste generate generated make choose pick override overwrite before after when
		very super ultra really long longer longest short big secure secured security random randomly
		strong safe unsafe insecure unique good great bad complex hard guess private public
		string text value values word words phrase thing something anything whatever
		secret secrets key keys token tokens jwt jws hs hmac sha sign signing signature auth authentication
		authorization bearer access refresh session sessions cookie password passwords passphrase passwd
		pass pwd pw pin code salt pepper seed encryption encrypt encryption crypto cipher master hash
		default defaults example examples sample demo test tests tester testing dummy fake placeholder
		template todo fixme tbd none null undefined foo bar baz qux xyz abc temp tmp
		dev devel develop developer development prod production staging stage local localhost deploy
		app apps application server service services api web website site page hub backend frontend
		client project company host domain system program env environment config variable setting openssl rand
		min minimum max maximum least more than length char chars character characters bit bits byte
		bytes letter letters number numbers digit digits symbol symbols base hex utf ascii plain random
		thirty two sixty four one three five six seven eight nine ten hundred twenty
		admin administrator root user username name owner guest login letmein welcome hello world
		lorem ipsum dolor sit amet consectetur adipiscing elit correct horse battery staple
		device id identifier llm art installation relay guard node bun laravel django rails spring flask
		express mercure supabase symfony nest next keyboard cat iloveyou monkey dragon
		new old current first last now today ever forever own just like so such can cannot need needs
		quick brown fox jumps over lazy dog`)
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	return list
}()

// withoutWords removes the words, the longest first, and every separator
// between them.
func withoutWords(text []rune) []rune {
	text = slices.DeleteFunc(slices.Clone(text), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '@' && r != '$'
	})
	folded := plain.Replace(string(text))
	for _, word := range words {
		folded = strings.ReplaceAll(folded, word, " ")
	}
	return []rune(folded)
}

func without(text []rune, drop []bool) []rune {
	var rest []rune
	for i, r := range text {
		if !drop[i] {
			rest = append(rest, r)
		}
	}
	return rest
}
