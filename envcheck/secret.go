package envcheck

import (
	"fmt"
	"log/slog"
)

// redacted is what any Secret looks like, empty ones too.
const redacted = "[redacted]"

// A Secret is a value that does not show: not through any verb of fmt, any
// handler of slog or any encoder, not even where it is an unexported field of
// what is printed. It is not comparable either; compare in constant time what
// [Secret.Reveal] returns. The zero value is empty.
type Secret struct {
	// A closure, as reflection cannot look into it: printers and dumpers get to
	// unexported fields without calling their methods, and follow pointers.
	reveal func() string
}

// NewSecret returns a Secret of value.
func NewSecret(value string) Secret {
	return Secret{func() string { return value }}
}

// Reveal returns the value, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether the value is empty.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Format prints "[redacted]", whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// LogValue returns "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for JSON, XML and others.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
