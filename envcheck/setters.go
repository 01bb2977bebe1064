package envcheck

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Setter reads a value and puts it where it belongs, once all variables have
// proved acceptable.
type Setter struct {
	kind   string
	words  []string // of a Choice
	secret bool
	parse  func(value string) (commit func(), err error)
}

// Func is a setter of anything: parse reads the value, and kind names what is
// expected, to be read after "must be", like "a list of prefixes". parse must
// have no effect but its result. Of its errors only a [CheckReason] is shown;
// instead of others, which may quote the value, kind is.
func Func[T any](into *T, kind string, parse func(value string) (T, error)) Setter {
	return Setter{kind: kind, parse: func(value string) (func(), error) {
		v, err := parse(value)
		if err != nil {
			return nil, err
		}
		return func() { *into = v }, nil
	}}
}

// expect is Func for a parse that has nothing to add to kind.
func expect[T any](into *T, kind string, parse func(value string) (T, bool)) Setter {
	return Func(into, kind, func(value string) (T, error) {
		v, ok := parse(value)
		if !ok {
			return v, errUnexpected
		}
		return v, nil
	})
}

var errUnexpected = errors.New("not what was expected")

// Text takes any text.
func Text[T ~string](into *T) Setter {
	return expect(into, "text", func(value string) (T, bool) { return T(value), true })
}

// SecretText takes any text and makes the variable secret.
func SecretText(into *Secret) Setter {
	s := expect(into, "text", func(value string) (Secret, bool) { return NewSecret(value), true })
	s.secret = true
	return s
}

// A Word is one of the values of a [Choice]. [As] makes one.
type Word[T any] struct {
	word  string
	value T
}

// As is the word that stands for value.
func As[T any](word string, value T) Word[T] { return Word[T]{word, value} }

// Choice takes one of the words, and sets the value that the word stands for.
// The words are documented in the order in which they are given.
func Choice[T any](into *T, words ...Word[T]) Setter {
	names := make([]string, len(words))
	values := make(map[string]T, len(words))
	for i, w := range words {
		names[i], values[w.word] = w.word, w.value
	}
	s := expect(into, either(names), func(value string) (T, bool) {
		v, ok := values[value]
		return v, ok
	})
	s.words = names
	return s
}

func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// Int takes a decimal number from low to high.
func Int[T ~int | ~int32 | ~int64 | ~uint16 | ~uint32](into *T, low, high T) Setter {
	return expect(into, fmt.Sprintf("a number from %d to %d", low, high), func(value string) (T, bool) {
		n, err := strconv.ParseInt(value, 10, 64)
		return T(n), err == nil && n >= int64(low) && n <= int64(high)
	})
}

// Port takes a TCP port: 1 to 65535.
func Port[T ~int | ~int32 | ~int64 | ~uint16 | ~uint32](into *T) Setter {
	return expect(into, "a TCP port, 1 to 65535", func(value string) (T, bool) {
		n, err := strconv.ParseUint(value, 10, 16)
		return T(n), err == nil && n > 0
	})
}

// Bytes takes a size from low to high bytes: a number, alone or with the unit
// B, KiB, MiB or GiB, like 64MiB.
func Bytes[T ~int | ~int64](into *T, low, high T) Setter {
	kind := fmt.Sprintf("a size from %s to %s, with the unit B, KiB, MiB or GiB", size(int64(low)), size(int64(high)))
	return expect(into, kind, func(value string) (T, bool) {
		number, unit := value, int64(1)
		for _, u := range units {
			if n, ok := strings.CutSuffix(value, u.name); ok {
				number, unit = n, u.size
				break
			}
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > int64(high)/unit {
			return 0, false
		}
		return T(n * unit), n*unit >= int64(low)
	})
}

// units are those of Bytes, B last: it ends the others' names too.
var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// size returns n in the largest unit that divides it.
func size(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0"
}

// Duration takes a duration from low to high with units, like 90s or 1h30m; 0
// needs none.
func Duration(into *time.Duration, low, high time.Duration) Setter {
	return expect(into, fmt.Sprintf("a duration from %v to %v, like 90s", low, high), func(value string) (time.Duration, bool) {
		d, err := time.ParseDuration(value)
		return d, err == nil && d >= low && d <= high
	})
}

// Bool takes true or false. 1, yes and on are refused rather than guessed at,
// as are True and TRUE.
func Bool[T ~bool](into *T) Setter {
	return expect(into, "true or false", func(value string) (T, bool) {
		return value == "true", value == "true" || value == "false"
	})
}

// List takes items separated by commas, with or without spaces around them.
// There must be one at least, and none may be empty or come twice.
func List[T ~string](into *[]T) Setter {
	return expect(into, "a list separated by commas, without empty or repeated items", func(value string) ([]T, bool) {
		seen := make(map[string]bool)
		var list []T
		for item := range strings.SplitSeq(value, ",") {
			item = strings.TrimSpace(item)
			if item == "" || seen[item] {
				return nil, false
			}
			seen[item] = true
			list = append(list, T(item))
		}
		return list, true
	})
}
