// Package envcheck reads the environment variables of a process once, when it
// starts. It accepts all of them, or refuses them and reports every problem at
// once, without showing a value.
//
//	package main
//
//	import (
//		"fmt"
//		"os"
//
//		"github.com/relayguard/relayguard/envcheck"
//	)
//
//	func main() {
//		var port int
//		spec := envcheck.Spec{Vars: []envcheck.Var{
//			{Name: "PORT", Default: "3000", Into: envcheck.Port(&port)},
//		}}
//		if err := spec.Load(os.LookupEnv); err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//		fmt.Println("port", port)
//	}
//
// A [Spec] lists the variables with their meaning, their targets and the values
// that they accept. It also writes the .env.example file, the table of a README
// and a report of the variables that are set, so these always agree with the
// program.
//
// # Secrets
//
// No error and no report contains a value from the environment, since a secret
// may be in the wrong variable. They show the rule that the value broke. Your
// own parsers and checks return a [CheckReason] for a text that may be shown. A
// [Secret] also hides its value when the program prints or logs it later, and
// [Strong] refuses placeholders.
//
// A variable with Secret or File set can also be given as NAME_FILE, the path
// of a file that holds the value. Container platforms mount secrets in this
// way. The file may have up to 64 KiB; line ends at its end are removed. If
// NAME and NAME_FILE are both set, Load refuses them, because it cannot know
// which one is meant.
//
// # Empty variables
//
// An empty variable counts as unset, since FOO= in an .env file usually means
// "not set". Set AllowEmpty if the empty value has a meaning.
//
// # Concurrency
//
// Load writes to the targets. All other methods only read, so several
// goroutines may call them at the same time.
package envcheck

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Lookup returns the value of a variable and whether it is set, as
// [os.LookupEnv] does.
type Lookup = func(name string) (value string, ok bool)

// Spec lists the variables that a process reads.
type Spec struct {
	Vars []Var

	// Environ lists the variables that are set, as [os.Environ] does. If nil,
	// os.Environ is used. It serves only to find misspelt names. A name is
	// ignored if Lookup does not find it.
	Environ func() []string

	unknown []string // names given to Only that are not in Vars
}

// Only returns a Spec of the named variables, in the order of s. Use it to
// check a rule between some variables even if others are wrong: load the part,
// and apply the rule if there is no error. If a name is not in s, the methods
// of the returned Spec report a [ConfigError].
func (s Spec) Only(names ...string) Spec {
	part := Spec{Environ: s.Environ, unknown: s.unknown}
	for _, v := range s.Vars {
		if slices.Contains(names, v.Name) {
			part.Vars = append(part.Vars, v)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(s.Vars, func(v Var) bool { return v.Name == name }) {
			part.unknown = append(part.unknown, name)
		}
	}
	return part
}

// Var is one variable.
type Var struct {
	// Name consists of capital letters, digits and underscores.
	Name string

	// Doc describes the purpose of the variable in one or two sentences.
	Doc string

	// Default is the value of a variable that is not set. Into and Check must
	// accept it.
	Default string

	// Required makes it an error if the variable is not set. Such a variable
	// must have no Default, which would never be used.
	Required bool

	// Secret allows NAME_FILE. A secret must have no Default and no Example:
	// both are published, and people would use them.
	Secret bool

	// File allows NAME_FILE for a variable that is not a secret.
	File bool

	// AllowEmpty makes the empty value a value like others: a variable that is
	// set and empty does not get its Default, and NAME_FILE may name an empty
	// file.
	AllowEmpty bool

	// Into stores the value. If it is the zero Setter, the value is only
	// checked.
	Into Setter

	// Check, if set, is called with a value that Into accepts, and returns an
	// error to refuse it. It is not called with the empty value that AllowEmpty
	// admits.
	Check func(value string) error

	// Example is shown in .env.example if there is no Default.
	Example string
}

// secret reports whether the value must stay hidden.
func (v *Var) secret() bool { return v.Secret || v.Into.secret }

// fileName returns the name of the variable that may hold a path, or "".
func (v *Var) fileName() string {
	if v.secret() || v.File {
		return v.Name + "_FILE"
	}
	return ""
}

// Load reads every variable and sets every target. If there is a problem, it
// sets no target and returns all problems, joined with [errors.Join], each an
// [*Error]. The target of a variable that is unset and has no Default keeps its
// value.
//
// A value must be valid UTF-8 without NUL characters. Load also refuses what
// environment files and copied texts leave on names and values, for every
// variable: carriage returns, quotes around a value, byte order marks and other
// characters that cannot be seen.
//
// Mistakes in the Spec itself are found in any environment. Load then returns
// only them, joined, each a [*ConfigError].
func (s Spec) Load(lookup Lookup) error {
	results, err := s.resolve(lookup)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.commit != nil {
			r.commit()
		}
	}
	return nil
}

// Check returns the same errors as [Spec.Load], and sets no target.
func (s Spec) Check(lookup Lookup) error {
	_, err := s.resolve(lookup)
	return err
}

// source is the place from which a value was read.
type source string

const (
	fromNowhere     source = ""
	fromEnvironment source = "environment"
	fromFile        source = "file"
	fromDefault     source = "default"
)

// result is the outcome for one variable.
type result struct {
	v      *Var
	source source
	name   string // the variable that was read: v.Name or v.fileName()
	err    *Error
	commit func()
}

func (s Spec) resolve(lookup Lookup) ([]result, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s.results(lookup)
}

func (s Spec) results(lookup Lookup) ([]result, error) {
	near := s.NearMisses(lookup)
	results := make([]result, len(s.Vars))
	var errs []error
	for i := range s.Vars {
		results[i] = s.Vars[i].resolve(lookup)
		if r := &results[i]; r.err == nil && (r.source == fromNowhere || r.source == fromDefault) {
			if set := s.Vars[i].disguised(near); set != "" {
				r.commit, r.err = nil, &Error{Name: r.name, Reason: ReasonInvalid,
					Detail: "is set as " + strconv.QuoteToASCII(set) + ", with characters that are no part of its name; remove them"}
			}
		}
		if err := results[i].err; err != nil {
			if err.Reason == ReasonMissing {
				err.Similar = s.Vars[i].misspelt(near)
			}
			errs = append(errs, err)
		}
	}
	return results, errors.Join(errs...)
}

// resolve finds, reads and checks the value of v.
func (v *Var) resolve(lookup Lookup) result {
	r := result{v: v, name: v.Name}
	fail := func(reason Reason, detail string) result {
		r.commit = nil
		r.err = &Error{Name: r.name, Reason: reason, Detail: detail}
		return r
	}
	value, set := lookup(v.Name)
	set = set && (value != "" || v.AllowEmpty)
	if set {
		r.source = fromEnvironment
	}
	if name := v.fileName(); name != "" {
		if path, ok := lookup(name); ok && path != "" {
			if set {
				return fail(ReasonConflict, "is set together with "+name+"; unset one of them")
			}
			r.source, r.name, set = fromFile, name, true
			reason := leftover(path, false)
			if reason != "" {
				return fail(ReasonInvalid, string(reason))
			}
			if value, reason = readFile(path); reason == emptyFile && v.AllowEmpty {
				reason = ""
			}
			if reason != "" {
				return fail(ReasonUnreadable, string(reason))
			}
		}
	}
	switch {
	case set:
	case v.Required:
		if file := v.fileName(); file != "" {
			return fail(ReasonMissing, "is required; set it or "+file)
		}
		return fail(ReasonMissing, "is required")
	case v.Default == "":
		return r
	default:
		r.source, value = fromDefault, v.Default
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return fail(ReasonInvalid, "must be UTF-8 without NUL characters")
	}
	var reason CheckReason
	switch r.source {
	case fromEnvironment:
		reason = leftover(value, v.secret())
	case fromFile:
		reason = leftoverOfFile(value, v.secret())
	}
	if reason != "" {
		return fail(ReasonInvalid, string(reason))
	}
	commit, err := v.accept(value)
	if err != nil {
		return fail(ReasonInvalid, v.explain(err))
	}
	r.commit = commit
	return r
}

// accept reads and checks the value.
func (v *Var) accept(value string) (commit func(), err error) {
	if v.Into.parse != nil {
		if commit, err = v.Into.parse(value); err != nil {
			return nil, err
		}
	}
	if v.Check != nil && value != "" {
		err = v.Check(value)
	}
	return commit, err
}

// explain returns the part of err that may be shown: the text of a CheckReason.
func (v *Var) explain(err error) string {
	var reason CheckReason
	switch {
	case errors.As(err, &reason):
		return reason.Error()
	case v.Into.kind != "":
		return "must be " + v.Into.kind
	}
	return "is not acceptable"
}

// environ returns the names that are set.
func (s Spec) environ() []string {
	environ := os.Environ
	if s.Environ != nil {
		environ = s.Environ
	}
	var names []string
	for _, kv := range environ() {
		if name, _, ok := strings.Cut(kv, "="); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}
