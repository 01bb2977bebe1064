package envcheck

import "strings"

// ConfigError is one mistake in a [Spec] itself. It never holds a value from
// the environment.
type ConfigError struct {
	Field  string // with its struct, such as `Spec.Vars["PORT"].Default`
	Reason error  // wraps a [ConfigReason], or says why a Default is refused
}

func (e *ConfigError) Error() string { return "envcheck: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Spec] is refused. The set is closed. It is
// an error, so that [errors.Is] finds it.
type ConfigReason string

// The reasons of a [ConfigError].
const (
	ConfigMalformed ConfigReason = "is malformed"
	ConfigDuplicate ConfigReason = "is given twice"
	ConfigConflict  ConfigReason = "contradicts another value"
	ConfigUnknown   ConfigReason = "is not one of the choices"
)

func (r ConfigReason) Error() string { return string(r) }

// Reason is why a variable was refused. The set is closed.
type Reason string

// The reasons of an [Error].
const (
	ReasonMissing    Reason = "missing"    // required, and not set or empty
	ReasonInvalid    Reason = "invalid"    // refused by Into or Check
	ReasonConflict   Reason = "conflict"   // NAME and NAME_FILE are both set
	ReasonUnreadable Reason = "unreadable" // NAME_FILE names no file with a value
)

// An Error is one problem with one variable. It never holds a value.
type Error struct {
	Name    string // the variable, or its NAME_FILE if that was read
	Reason  Reason
	Detail  string   // the rule that was broken, to be read after Name
	Similar []string // names that are set and look like a misspelt Name
}

func (e *Error) Error() string { return "envcheck: " + e.Name + " " + e.predicate() }

// predicate is the part of the error's text that follows the name.
func (e *Error) predicate() string {
	if len(e.Similar) == 0 {
		return e.Detail
	}
	return e.Detail + " (" + strings.Join(e.Similar, " and ") + " is set: misspelt?)"
}

// CheckReason is why a check, or the parse function of a [Func], refuses a
// value. It is an error whose text is read after the name of the variable, such
// as "must be even". The text must not come from the value: it is the only text
// of a check's error that is shown. Any text may be one.
type CheckReason string

func (r CheckReason) Error() string { return string(r) }
