package envcheck

import (
	"strconv"
	"strings"
)

// ConfigError is one mistake in a [Spec] itself. It never holds a value from
// the environment.
type ConfigError struct {
	Field string // with its struct, such as `Spec.Vars["PORT"].Default`
	// Reason wraps a [ConfigReason]. If Into or Check refuses a Default, it is
	// a [CheckReason].
	Reason error
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

// Reason is why a variable is refused. The set is closed.
type Reason string

// The reasons of an [Error].
const (
	ReasonMissing    Reason = "missing"    // required, also by a Rule, but unset or empty
	ReasonInvalid    Reason = "invalid"    // the value is refused, or the spelling of its name, or by a RuleFunc
	ReasonConflict   Reason = "conflict"   // NAME and NAME_FILE are both set, or two variables that a Rule forbids together
	ReasonUnreadable Reason = "unreadable" // unreadable or empty NAME_FILE, or unreadable credential
)

// Error is one problem with one variable of the environment. It never holds a
// value.
type Error struct {
	Name    string // the variable, or NAME_FILE if that was read
	Reason  Reason
	Detail  string   // the rule that was broken, such as "must be even"
	Similar []string // names that are set and may be a misspelt Name; any characters
}

func (e *Error) Error() string { return "envcheck: " + e.Name + " " + e.predicate() }

// predicate returns the part of the error's text that follows the name.
func (e *Error) predicate() string {
	if len(e.Similar) == 0 {
		return e.Detail
	}
	names := make([]string, len(e.Similar))
	for i, name := range e.Similar {
		names[i] = visible(name)
	}
	return e.Detail + " (is " + strings.Join(names, " or ") + " a misspelling?)"
}

// visible returns the name as it is, or in quotes with escapes if it has a
// character that cannot be seen.
func visible(name string) string {
	if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` || strings.Contains(name, " ") {
		return quoted
	}
	return name
}

// CheckReason is the error with which a check, or the parse function of a
// [Func], refuses a value, such as envcheck.CheckReason("must be even"). Any
// text may be one, but it must not quote the value: an [Error] shows it after
// the name of the variable. The text of any other error is never shown.
type CheckReason string

func (r CheckReason) Error() string { return string(r) }
