package envcheck

import "strings"

// A Reason is why a variable was refused.
type Reason string

// The reasons of an [Error].
const (
	Missing    Reason = "missing"    // required, and not set or empty
	Invalid    Reason = "invalid"    // refused by Into or Check
	Conflict   Reason = "conflict"   // NAME and NAME_FILE are both set
	Unreadable Reason = "unreadable" // NAME_FILE names no file with a value
	BadSpec    Reason = "bad spec"   // the programmer's mistake
)

// An Error is one problem with one variable. It never holds a value.
type Error struct {
	Name    string // the variable, or its NAME_FILE if that was read
	Reason  Reason
	Detail  string   // the rule that was broken, to be read after Name
	Similar []string // names that are set and look like a misspelt Name
}

func (e *Error) Error() string {
	text := e.Name + " " + e.Detail
	if len(e.Similar) > 0 {
		text += " (" + strings.Join(e.Similar, " and ") + " is set: misspelt?)"
	}
	return text
}

// A Problem is an error that tells a rule, to be read after the name of a
// variable, like "must be even". Its text must not come from the value: it is
// the only text of a parser's or check's error that is told.
type Problem string

func (p Problem) Error() string { return string(p) }

// Source is where a value came from.
type Source string

// The sources of a value.
const (
	FromNowhere     Source = ""
	FromEnvironment Source = "environment"
	FromFile        Source = "file"
	FromDefault     Source = "default"
)
