package envcheck

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Setter reads a value and stores it in its target. [Spec.Load] stores values
// only after it has accepted all variables.
type Setter struct {
	kind   string
	words  []string // of a Choice
	secret bool
	parse  func(value string) (commit func(), err error)
}

// Func returns a setter for values that parse can read. The kind describes the
// expected values in errors and documents, after the words "must be", such as
// "a list of prefixes". If parse returns a [CheckReason], the error of Load
// shows its text; for any other error, which may quote the value, it shows the
// kind. The parse function must have no side effects, since [Spec.Check] calls
// it too.
func Func[T any](into *T, kind string, parse func(value string) (T, error)) Setter {
	return Setter{kind: kind, parse: func(value string) (func(), error) {
		v, err := parse(value)
		if err != nil {
			return nil, err
		}
		return func() { *into = v }, nil
	}}
}

// expect is Func for a parse function that has nothing to add to the kind.
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

// Text accepts any text.
func Text[T ~string](into *T) Setter {
	return expect(into, "text", func(value string) (T, bool) { return T(value), true })
}

// SecretText accepts any text and makes the variable a secret, as Var.Secret
// does.
func SecretText(into *Secret) Setter {
	s := expect(into, "text", func(value string) (Secret, bool) { return NewSecret(value), true })
	s.secret = true
	return s
}

// Word is one word that a [Choice] accepts. Make it with [As].
type Word[T any] struct {
	word  string
	value T
}

// As returns a Word that sets the target to value.
func As[T any](word string, value T) Word[T] { return Word[T]{word, value} }

// Choice accepts one of the words, and sets the target to the value of that
// word. Errors and documents list the words in the given order.
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

// Int accepts a decimal number from low to high, both included.
func Int[T ~int | ~int32 | ~int64 | ~uint16 | ~uint32](into *T, low, high T) Setter {
	return expect(into, fmt.Sprintf("a number from %d to %d", low, high), func(value string) (T, bool) {
		n, err := strconv.ParseInt(value, 10, 64)
		return T(n), err == nil && n >= int64(low) && n <= int64(high)
	})
}

// Port accepts a TCP port from 1 to 65535.
func Port[T ~int | ~int32 | ~int64 | ~uint16 | ~uint32](into *T) Setter {
	return expect(into, "a TCP port, 1 to 65535", func(value string) (T, bool) {
		n, err := strconv.ParseUint(value, 10, 16)
		return T(n), err == nil && n > 0
	})
}

// Bytes accepts a size from low to high bytes, both included: a decimal number
// with the unit B, KiB (1024 bytes), MiB or GiB, such as 64MiB. A number
// without a unit is in bytes.
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

// units are the units of Bytes. B is the last, because the others end in it.
var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// size returns n in the largest unit of which it is a multiple.
func size(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0"
}

// Duration accepts a duration from low to high, both included, in the form of
// [time.ParseDuration], such as 90s or 1h30m. Only 0 may lack a unit. There is
// no unit for days.
func Duration(into *time.Duration, low, high time.Duration) Setter {
	kind := fmt.Sprintf("a duration from %s to %s, like 90s or 1h30m (a day is 24h)", short(low), short(high))
	return expect(into, kind, func(value string) (time.Duration, bool) {
		d, err := time.ParseDuration(value)
		return d, err == nil && d >= low && d <= high
	})
}

// short returns d without units of which there are none, such as 1h for 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Bool accepts true and false. It refuses other spellings, such as 1, yes, on
// and TRUE.
func Bool[T ~bool](into *T) Setter {
	return expect(into, "true or false", func(value string) (T, bool) {
		return value == "true", value == "true" || value == "false"
	})
}

// List accepts items separated by commas, and drops the spaces around each
// item. It refuses empty and repeated items. An empty value, which only a [Var]
// with AllowEmpty admits, is a list of no items.
func List[T ~string](into *[]T) Setter {
	return expect(into, "a list separated by commas, without empty or repeated items", func(value string) ([]T, bool) {
		if value == "" {
			return nil, true
		}
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
