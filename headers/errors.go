package headers

import "strconv"

// ConfigError is one mistake in a [Policy] or a [ReportConfig]. A Policy is no
// secret, so the text quotes the part of it that is refused.
type ConfigError struct {
	Field  string // with its struct, such as `Policy.HSTS.MaxAge` or `Policy.CSP["img-src"][0]`
	Reason error  // wraps a [ConfigReason], or in a CSP a [Reason]
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

// Reason is what is wrong in a CSP. The set is closed. It is an error, so that
// [errors.Is] finds it in what [ParseCSP] and [New] return:
//
//	errors.Is(err, headers.ReasonUnquoted)
type Reason string

// The reasons of an [Error].
const (
	ReasonCharacter  Reason = "contains a character that cannot stand there"
	ReasonUnknown    Reason = "is not a directive of Content Security Policy Level 3"
	ReasonValue      Reason = "is not a value of this directive in Content Security Policy Level 3"
	ReasonDuplicate  Reason = "is given twice"
	ReasonEmpty      Reason = "has no value"
	ReasonExtra      Reason = "takes no value, or only one"
	ReasonUnquoted   Reason = "is a keyword that needs single quotes; without them it is the name of a host"
	ReasonColon      Reason = "is a scheme that needs a colon; without it, it is the name of a host"
	ReasonMisplaced  Reason = "has no effect in this place"
	ReasonSource     Reason = "is not a source expression"
	ReasonNotAlone   Reason = "has 'none' beside other sources, where it is ignored"
	ReasonDynamic    Reason = "has 'strict-dynamic' without a nonce or a hash, which allows nothing"
	ReasonFixedNonce Reason = "is a nonce that would be the same in every response; use NonceSource"
	ReasonURL        Reason = "is neither an https URL nor an absolute path"
	ReasonName       Reason = "is not a name that can stand there"
)

func (r Reason) Error() string { return string(r) }

// Error is one mistake in a text that [ParseCSP] cannot accept. It quotes the
// part that is refused.
type Error struct {
	Directive string
	Value     string // one item of the directive's value; empty if the mistake is in the directive
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
