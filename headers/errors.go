package headers

import (
	"fmt"
	"strings"
)

// Reason says what is wrong with a value. The set is closed: New, ParseCSP and NewReportHandler use no other.
// A Reason is an error, so that errors.Is finds it in the joined error of New:
//
//	errors.Is(err, headers.ReasonUnquoted)
type Reason string

// The reasons.
const (
	ReasonCharacter   Reason = "contains a character that cannot stand there"
	ReasonValue       Reason = "is not one of the values defined for this header"
	ReasonUnknown     Reason = "is not a directive of Content Security Policy Level 3"
	ReasonDuplicate   Reason = "is given twice"
	ReasonEmpty       Reason = "has no value"
	ReasonExtra       Reason = "takes no value, or only one"
	ReasonUnquoted    Reason = "is a keyword that needs single quotes; without them it is the name of a host"
	ReasonColon       Reason = "is a scheme that needs a colon; without it, it is the name of a host"
	ReasonKeyword     Reason = "is not a keyword of Content Security Policy Level 3"
	ReasonMisplaced   Reason = "has no effect in this place"
	ReasonSource      Reason = "is not a source expression"
	ReasonNone        Reason = "'none' stands beside other sources, and is ignored there"
	ReasonDynamic     Reason = "'strict-dynamic' without a nonce or a hash allows nothing"
	ReasonFixedNonce  Reason = "is a nonce that would be the same in every response; use NonceSource"
	ReasonAge         Reason = "is not a whole, positive number of seconds"
	ReasonPreload     Reason = "preload needs a year and IncludeSubDomains"
	ReasonConflict    Reason = "contradicts another field of the policy"
	ReasonURL         Reason = "is neither an https URL nor an absolute path"
	ReasonName        Reason = "is not a name that can stand there"
	ReasonNoEndpoint  Reason = "names an endpoint that Reporting-Endpoints does not define"
	ReasonOutOfBounds Reason = "is negative"
)

// Error makes a Reason an error.
func (r Reason) Error() string { return string(r) }

// An Error is one mistake in a Policy, a CSP or a ReportConfig. It quotes the offending value.
type Error struct {
	Field     string // the header's name, or the field of the ReportConfig
	Directive string // the CSP directive or the permission, where there is one
	Value     string // what was refused, empty where something is missing
	Reason    Reason
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("headers: ")
	b.WriteString(e.Field)
	if e.Directive != "" {
		fmt.Fprintf(&b, ": %q", e.Directive)
	}
	if e.Value != "" {
		fmt.Fprintf(&b, ": %q", e.Value)
	}
	b.WriteString(" ")
	b.WriteString(string(e.Reason))
	return b.String()
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Reason }
