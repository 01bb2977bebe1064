package headers

import "strconv"

// ConfigError is one mistake in a [Policy] or a [ReportConfig]. Its text quotes
// the refused part of the policy, which is not a secret.
type ConfigError struct {
	// Field is the path of the mistake with its struct, such as
	// Policy.HSTS.MaxAge or Policy.CSP["img-src"][0].
	Field string
	// Reason wraps a [ConfigReason], or a [Reason] if the mistake is in a CSP.
	Reason error
}

func (e *ConfigError) Error() string { return "headers: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a configuration is refused. The set is closed.
// It is an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigMissing   ConfigReason = "is required"
	ConfigNegative  ConfigReason = "must not be negative"
	ConfigUnknown   ConfigReason = "is not one of the choices"
	ConfigMalformed ConfigReason = "is malformed"
	ConfigDuplicate ConfigReason = "is given twice"
	ConfigConflict  ConfigReason = "contradicts another value"
)

func (r ConfigReason) Error() string { return string(r) }

// Reason is why a part of a CSP is refused. The set is closed. It is an error,
// so that [errors.Is] finds it in the errors of [ParseCSP] and [New]:
//
//	errors.Is(err, headers.ReasonUnquoted)
type Reason string

// The reasons of an [Error].
const (
	ReasonCharacter  Reason = "contains a character that is not allowed there"
	ReasonUnknown    Reason = "is not a directive of Content Security Policy Level 3"
	ReasonValue      Reason = "is not a value of this directive in Content Security Policy Level 3"
	ReasonDuplicate  Reason = "is given twice"
	ReasonEmpty      Reason = "has no value"
	ReasonExtra      Reason = "has more values than it takes"
	ReasonUnquoted   Reason = "is a keyword that needs single quotes; without them it is the name of a host"
	ReasonColon      Reason = "is a scheme that needs a colon; without the colon it is the name of a host"
	ReasonMisplaced  Reason = "has no effect here"
	ReasonSource     Reason = "is not a source expression"
	ReasonNotAlone   Reason = "has 'none' next to other sources, so browsers ignore 'none'"
	ReasonDynamic    Reason = "has 'strict-dynamic' without a nonce or a hash, so it allows no script"
	ReasonFixedNonce Reason = "is a nonce that would be the same in every response; use NonceSource"
	ReasonURL        Reason = "is neither an https URL nor an absolute path"
	ReasonName       Reason = "is not a name that is allowed there"
)

func (r Reason) Error() string { return string(r) }

// Error is one mistake in the text given to [ParseCSP]. It quotes the refused
// part.
type Error struct {
	Directive string
	Value     string // the refused item; empty if it is the directive
	Reason    Reason
}

func (e *Error) Error() string {
	text := "headers: Content-Security-Policy: " + strconv.Quote(e.Directive)
	if e.Value != "" {
		text += ": " + strconv.Quote(e.Value)
	}
	return text + " " + string(e.Reason)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Reason }
