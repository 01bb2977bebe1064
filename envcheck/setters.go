package envcheck

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setter reads a value and stores it in its target. [Spec.Load] stores values
// only after it has accepted all variables.
type Setter struct {
	kind    func() string // of the values, after "must be"
	words   []string      // all values, if there are few
	secret  bool
	local   bool   // whether the machine decides if a value is accepted
	mistake string // in the arguments of the function that made it

	// parts returns what a secret value is made of, such as the items of a
	// list, each a secret of its own; nil if it is one secret.
	parts func(value string) []string

	// parse reads the value of a variable, which may be a secret. Each call of
	// swap exchanges the target's value with the other one.
	parse func(value string, secret bool) (swap func(), err error)
}

// Func returns a setter for values that parse can read. The kind describes the
// expected values in errors and documents, after the words "must be", such as
// "a list of prefixes". If parse returns a [CheckReason], the error of Load
// shows its text; for any other error, which may quote the value, it shows the
// kind. The parse function must have no side effects, since [Spec.Check] calls
// it too. It is not called with the empty value.
func Func[T any](into *T, kind string, parse func(value string) (T, error)) Setter {
	return setter(into, func() string { return kind }, func(value string, _ bool) (T, error) { return parse(value) })
}

func setter[T any](into *T, kind func() string, parse func(value string, secret bool) (T, error)) Setter {
	return Setter{kind: kind, parse: func(value string, secret bool) (func(), error) {
		var v T
		if value != "" { // or AllowEmpty admits it
			var err error
			if v, err = parse(value, secret); err != nil {
				return nil, err
			}
		}
		return func() { *into, v = v, *into }, nil
	}}
}

// expect is Func for a parse function that has nothing to add to the kind.
func expect[T any](into *T, kind func() string, parse func(value string) (T, bool)) Setter {
	return setter(into, kind, func(value string, _ bool) (T, error) {
		v, ok := parse(value)
		if !ok {
			return v, errUnexpected
		}
		return v, nil
	})
}

var errUnexpected = errors.New("not what was expected")

// anyText is the kind of a setter that accepts all values.
const anyText = "text"

// Text accepts any text.
func Text[T ~string](into *T) Setter {
	return expect(into, func() string { return anyText }, func(value string) (T, bool) { return T(value), true })
}

// Bool accepts true and false. It refuses other spellings, such as 1, yes, on
// and TRUE.
func Bool[T ~bool](into *T) Setter {
	return expect(into, func() string { return "true or false" }, func(value string) (T, bool) {
		return value == "true", value == "true" || value == "false"
	})
}

// Enum accepts one of the words. Errors and documents list them in the given
// order.
func Enum[T ~string](into *T, words ...T) Setter {
	list := make([]Word[T], len(words))
	for i, word := range words {
		list[i] = As(string(word), word)
	}
	return Choice(into, list...)
}

// Word is one word that a [Choice] accepts. Make it with [As].
type Word[T any] struct {
	word  string
	value T
}

// As returns a Word that sets the target to value.
func As[T any](word string, value T) Word[T] { return Word[T]{word, value} }

// Choice is an [Enum] whose words stand for other values: it sets the target to
// the value of the word.
func Choice[T any](into *T, words ...Word[T]) Setter {
	names := make([]string, len(words))
	for i, w := range words {
		names[i] = w.word
	}
	s := expect(into, func() string { return join(names, "or", plainly) }, func(value string) (v T, ok bool) {
		if i := slices.Index(names, value); i >= 0 {
			return words[i].value, true
		}
		return v, false
	})
	s.words = names
	if len(words) == 0 {
		s.mistake = "it accepts no words"
	}
	return s
}

// integer is every type of integers.
type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

// Number accepts a decimal number from low to high, both included: a whole
// number if T is an integer, or else also a fraction, such as 0.5 or 1e-3. The
// smallest and the largest value of a type of 64 bits, such as
// [math.MaxInt64] and [math.MaxFloat64], mean that there is no bound; so does
// [math.MaxFloat32] for a float32.
func Number[T integer | ~float32 | ~float64](into *T, low, high T) Setter {
	if one := T(1); one/2 != 0 {
		return bounded(into, low, high, parseFloat[T], "a number", "",
			func(v T) string { return strconv.FormatFloat(float64(v), 'g', -1, 64) },
			float64(low) == -math.MaxFloat64 || float64(low) == -math.MaxFloat32 || math.IsInf(float64(low), -1),
			float64(high) == math.MaxFloat64 || float64(high) == math.MaxFloat32 || math.IsInf(float64(high), 1))
	}
	var zero T
	if zero-1 > zero {
		return bounded(into, low, high, parseUint[T], "a whole number", "",
			func(v T) string { return strconv.FormatUint(uint64(v), 10) },
			false, uint64(high) == math.MaxUint64)
	}
	return bounded(into, low, high, parseInt[T], "a whole number", "",
		func(v T) string { return strconv.FormatInt(int64(v), 10) },
		int64(low) == math.MinInt64, int64(high) == math.MaxInt64)
}

func parseInt[T integer | ~float32 | ~float64](value string) (T, bool) {
	n, err := strconv.ParseInt(value, 10, 64)
	return T(n), err == nil && int64(T(n)) == n && value[0] != '+'
}

func parseUint[T integer | ~float32 | ~float64](value string) (T, bool) {
	n, err := strconv.ParseUint(value, 10, 64)
	return T(n), err == nil && uint64(T(n)) == n
}

// parseFloat refuses what strconv reads beside decimal numbers: infinities, NaN
// and hexadecimal numbers.
func parseFloat[T integer | ~float32 | ~float64](value string) (T, bool) {
	f, err := strconv.ParseFloat(value, 64)
	return T(f), err == nil && value[0] != '+' && strings.Trim(value, "0123456789.+-eE") == "" &&
		!math.IsInf(float64(T(f)), 0)
}

// bounded is expect for values from low to high. An open bound is not shown.
func bounded[T integer | ~float32 | ~float64](into *T, low, high T, parse func(string) (T, bool),
	noun, unit string, show func(T) string, lowOpen, highOpen bool) Setter {
	s := expect(into, func() string {
		switch {
		case lowOpen && highOpen:
			return noun + unit
		case highOpen:
			return noun + " of " + show(low) + " or more" + unit
		case lowOpen:
			return noun + " of " + show(high) + " or less" + unit
		}
		return noun + " from " + show(low) + " to " + show(high) + unit
	}, func(value string) (T, bool) {
		v, ok := parse(value)
		return v, ok && low <= v && v <= high
	})
	if !(low <= high) {
		s.mistake = "its bounds admit no value"
	}
	return s
}

// Port accepts a TCP port from 1 to 65535.
func Port[T ~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64](into *T) Setter {
	return expect(into, func() string { return "a TCP port, 1 to 65535" }, func(value string) (T, bool) {
		n, err := strconv.ParseUint(value, 10, 16)
		return T(n), err == nil && n > 0
	})
}

// Bytes accepts a size from low to high bytes, both included: a decimal number
// with the unit B, KiB (1024 bytes), MiB or GiB, such as 64MiB. A number
// without a unit is in bytes. If high is [math.MaxInt64], there is no upper
// bound.
func Bytes[T ~int | ~int64 | ~uint64](into *T, low, high T) Setter {
	return bounded(into, low, high, parseSize[T], "a size", ", with the unit B, KiB, MiB or GiB",
		func(v T) string { return size(uint64(v)) }, false, uint64(high) >= math.MaxInt64)
}

func parseSize[T integer | ~float32 | ~float64](value string) (T, bool) {
	number, unit := value, uint64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(value, u.name); ok {
			number, unit = n, u.size
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, false
	}
	return T(n * unit), uint64(T(n*unit)) == n*unit
}

// units are the units of Bytes. B is the last, because the others end in it.
var units = []struct {
	name string
	size uint64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// size returns n in the largest unit of which it is a multiple.
func size(n uint64) string {
	for _, u := range units {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatUint(n/u.size, 10) + u.name
		}
	}
	return "0"
}

// Duration accepts a duration from low to high, both included, in the form of
// [time.ParseDuration], such as 90s or 1h30m. Only 0 may lack a unit. There is
// no unit for days. If high is [math.MaxInt64], there is no upper bound.
func Duration(into *time.Duration, low, high time.Duration) Setter {
	parse := func(value string) (time.Duration, bool) {
		d, err := time.ParseDuration(value)
		return d, err == nil
	}
	return bounded(into, low, high, parse, "a duration", ", like 90s or 1h30m (a day is 24h)",
		short, low == math.MinInt64, high == math.MaxInt64)
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

// Time accepts a time in a layout of package time, such as [time.RFC3339] or
// [time.DateOnly].
func Time(into *time.Time, layout string) Setter {
	kind := func() string {
		return fmt.Sprintf("a time like %s", time.Date(2026, 1, 31, 18, 30, 0, 0, time.UTC).Format(layout))
	}
	return expect(into, kind, func(value string) (time.Time, bool) {
		t, err := time.Parse(layout, value)
		return t, err == nil
	})
}
