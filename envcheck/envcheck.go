// Package envcheck reads a process's environment once, at start, and refuses
// it as a whole with every problem named, or accepts it as a whole.
//
// A [Spec] lists the variables: what they mean, where they go and what is
// acceptable. The same list makes the .env.example file, the table in a README
// and the report of what is set, so that none of them can go stale.
//
// # Secrets
//
// No value from the environment is ever part of an error or a report, only the
// rule that it broke: what is meant for one variable ends up in another one
// day. That goes for errors of your own parsers and checks too; see [CheckReason].
// A [Secret] keeps a value out of what is printed later, whatever prints it,
// and [Strong] refuses values that were meant to be replaced.
//
// A variable that is Secret or has File set can be given as NAME_FILE, the path
// of a file with the value, as container platforms mount secrets. Both set is
// refused, for nobody could tell which one counts.
//
// # Empty is missing
//
// FOO= in an .env file is how people write "not set", so an empty variable is
// treated as absent, unless AllowEmpty says that empty is a value.
//
// A [Spec] has no state: its methods may be called from several goroutines, if
// only one of them is a Load.
package envcheck

import (
	"errors"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Lookup finds a variable, as [os.LookupEnv] does.
type Lookup = func(name string) (value string, ok bool)

// A Spec is the list of variables that a process reads.
type Spec struct {
	Vars []Var

	// Environ lists what is set, as [os.Environ] does, which is what nil means.
	// It serves only to find misspelt names, and what Lookup does not confirm
	// is ignored.
	Environ func() []string

	unknown []string // names that were given to Only and are not in Vars
}

// Only returns a Spec of the named variables alone. It serves to check a rule
// between some variables even if others are wrong: load the part, and apply the
// rule if that succeeds. A name that is not in s is a mistake, which the
// methods of the returned Spec report.
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

// A Var is one variable.
type Var struct {
	// Name is of capital letters, digits and underscores.
	Name string

	// Doc says in a sentence or two what the variable is for.
	Doc string

	// Default is the value where none is set. It must be acceptable itself.
	Default string

	// Required makes it a problem that none is set.
	Required bool

	// Secret allows NAME_FILE, and keeps Default and Example empty: both are
	// shown, and what is shown is what people use.
	Secret bool

	// File allows NAME_FILE for what is not secret.
	File bool

	// AllowEmpty makes a variable that is set and empty a value like others,
	// where Default would count otherwise, and allows NAME_FILE to be an empty
	// file.
	AllowEmpty bool

	// Into is where the value goes. Its zero value only checks.
	Into Setter

	// Check has the last word on a value that Into can read. It is not given
	// the empty value that AllowEmpty admits.
	Check func(value string) error

	// Example is shown in .env.example where there is no Default.
	Example string
}

// secret reports whether the value must not be seen.
func (v *Var) secret() bool { return v.Secret || v.Into.secret }

// fileName returns the name of the variable that may hold a path, or "".
func (v *Var) fileName() string {
	if v.secret() || v.File {
		return v.Name + "_FILE"
	}
	return ""
}

// Load reads every variable and sets every target, or sets none and returns
// all problems, joined, each an [*Error]. Targets of variables that are not
// set and have no Default are left as they are.
//
// Mistakes in the Spec itself are found whatever the environment is. Load then
// returns these alone, joined, each a [*ConfigError].
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

// Check is Load without setting anything.
func (s Spec) Check(lookup Lookup) error {
	_, err := s.resolve(lookup)
	return err
}

// source is where a value came from.
type source string

const (
	fromNowhere     source = ""
	fromEnvironment source = "environment"
	fromFile        source = "file"
	fromDefault     source = "default"
)

// result is what became of one variable.
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
				return fail(ReasonConflict, "is set beside "+name+"; unset one of them")
			}
			r.source, r.name, set = fromFile, name, true
			var reason CheckReason
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
			return fail(ReasonMissing, "is required, or "+file)
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
	commit, err := v.accept(value)
	if err != nil {
		return fail(ReasonInvalid, v.explain(err))
	}
	r.commit = commit
	return r
}

// accept reads and checks a value.
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
