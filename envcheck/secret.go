package envcheck

import (
	"fmt"
	"log/slog"
	"reflect"
)

// redacted is the printed form of every Secret, including an empty one.
const redacted = "[redacted]"

// Secret is a value that does not appear in output: not through any verb of
// fmt, any handler of slog or any encoder, even if it is an unexported field of
// the printed value. It cannot be compared with ==; compare the results of
// [Secret.Reveal] in constant time (crypto/subtle). The zero value is empty.
type Secret[T any] struct {
	// A closure, because reflection cannot read its variables. Printers and
	// dumpers reach unexported fields without calling their methods, and follow
	// pointers.
	reveal func() T
}

// NewSecret returns a Secret of value. It does not copy what value refers to,
// such as the bytes of a slice.
func NewSecret[T any](value T) Secret[T] {
	return Secret[T]{func() T { return value }}
}

// Reveal returns the value. Call it only at the place that needs the value.
func (s Secret[T]) Reveal() (value T) {
	if s.reveal == nil {
		return value
	}
	return s.reveal()
}

// IsZero reports whether the value is the zero value of T, such as the empty
// string.
func (s Secret[T]) IsZero() bool {
	value := s.Reveal()
	return reflect.ValueOf(&value).Elem().IsZero()
}

// Format prints "[redacted]" for every verb.
func (s Secret[T]) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String returns "[redacted]".
func (s Secret[T]) String() string { return redacted }

// LogValue returns "[redacted]".
func (s Secret[T]) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for JSON, XML and other encoders.
func (s Secret[T]) MarshalText() ([]byte, error) { return []byte(redacted), nil }
