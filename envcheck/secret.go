package envcheck

import (
	"fmt"
	"log/slog"
)

// redacted is the printed form of every Secret, including an empty one.
const redacted = "[redacted]"

// Secret is a value that does not appear in output: not through any verb of
// fmt, any handler of slog or any encoder, even if it is an unexported field of
// the printed value. It cannot be compared with ==; compare the results of
// [Secret.Reveal] in constant time (crypto/subtle). The zero value is empty.
type Secret struct {
	// A closure, because reflection cannot read its variables. Printers and
	// dumpers reach unexported fields without calling their methods, and follow
	// pointers.
	reveal func() string
}

// NewSecret returns a Secret of value.
func NewSecret(value string) Secret {
	return Secret{func() string { return value }}
}

// Reveal returns the value. Call it only at the place that needs the value.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether the value is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Format prints "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// LogValue returns "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for JSON, XML and other encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
