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
// A [Spec] lists the variables with their meaning, their targets, the values
// that they accept, and the rules between them. It also writes the .env.example
// file, the table of a README and a report of the variables that are set, so
// these always agree with the program.
//
// # Values
//
// A [Setter] reads a value and stores it: [Text], [Bool], [Number] of every
// type, [Port], [Bytes], [Duration], [Time], [URL], [HostPort], [File],
// [Bytes64], [Enum] and [Choice], [TextUnmarshaler] for types that read
// themselves, and [Func] for all others. [ListOf], [Map], [Optional] and
// [SecretOf] make setters of these. A Check refuses some of the values.
//
// # Sources
//
// Load reads from any [Lookup]: [os.LookupEnv], [FromMap], a .env file
// ([Dotenv]), the credentials of systemd ([Credentials]), or several of them
// ([Chain]).
//
// # Secrets
//
// No error and no report contains a value from the environment, since a secret
// may be in the wrong variable. They show the rule that the value broke. Your
// own parsers and checks return a [CheckReason] for a text that may be shown. A
// [Secret] also hides its value when the program prints or logs it later, a
// [Redactor] blanks the value in a log, wherever it comes from, and [Strong]
// refuses placeholders.
//
// A variable with Secret or AllowFile set can also be given as NAME_FILE, the
// path of a file that holds the value. Container platforms mount secrets in
// this way. The file may have up to 64 KiB; line ends at its end are removed.
// If NAME and NAME_FILE are both set, Load refuses them, because it cannot know
// which one is meant.
//
// # Empty variables
//
// An empty variable counts as unset, since FOO= in an .env file usually means
// "not set". Set AllowEmpty if the empty value has a meaning.
//
// # Concurrency
//
// Load writes to the targets. Check and WriteReport write to the targets that a
// [RuleFunc] reads, and put the old values back: call them with a Spec of other
// targets than those that the program uses. All other methods only read, so
// several goroutines may call them at the same time.
package envcheck

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Spec lists the variables that a process reads.
type Spec struct {
	Vars []Var

	// Rules are about several variables. Load reports a rule that is broken
	// together with all other problems.
	Rules []Rule

	// Redactor, if set, gets the value of every secret that Load reads, also if
	// Load fails. Of a list it also gets each item, of a map each value, and of
	// Bytes64 the bytes.
	Redactor *Redactor

	// Unset, if set, is called for every secret that Load has read from its
	// Lookup, after Load has set the targets. With [os.Unsetenv], child
	// processes do not inherit the secrets, and a second Load does not find
	// them. On Linux, /proc/PID/environ still shows them to processes of the
	// same user. Only files and credentials are never there.
	Unset func(name string) error

	unknown []string // names given to Only that are not in Vars
}

// Only returns a Spec of the named variables, in the order of s, with the rules
// that are only about them. Use it if a part of the program, such as a command,
// reads only some variables. If a name is not in s, the methods of the returned
// Spec report a [ConfigError].
func (s Spec) Only(names ...string) Spec {
	part := Spec{Redactor: s.Redactor, Unset: s.Unset, unknown: s.unknown}
	for _, v := range s.Vars {
		if slices.Contains(names, v.Name) {
			part.Vars = append(part.Vars, v)
		}
	}
	for _, rule := range s.Rules {
		if !slices.ContainsFunc(rule.names, func(name string) bool { return !slices.Contains(names, name) }) {
			part.Rules = append(part.Rules, rule)
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

	// AllowFile allows NAME_FILE for a variable that is not a secret.
	AllowFile bool

	// AllowEmpty makes the empty value a value: a variable that is set and
	// empty does not get its Default, and its target gets the zero value, such
	// as an empty list. NAME_FILE may name an empty file.
	AllowEmpty bool

	// Into stores the value. If it is the zero Setter, the value is only
	// checked.
	Into Setter

	// Check, if set, is called with a value that Into accepts, and returns an
	// error to refuse it. It is not called with the empty value.
	Check func(value string) error

	// Example is shown in .env.example if there is no Default.
	Example string
}

// secret reports whether the value must stay hidden.
func (v *Var) secret() bool { return v.Secret || v.Into.secret }

// fileName returns the name of the variable that may hold a path, or "".
func (v *Var) fileName() string {
	if v.secret() || v.AllowFile {
		return v.Name + "_FILE"
	}
	return ""
}

// orFile names the other way to set a variable that is missing, or nothing.
func (v *Var) orFile() string {
	if name := v.fileName(); name != "" {
		return "; set it or " + name
	}
	return ""
}

// Load reads every variable, sets every target and applies every rule. If there
// is a problem, it sets no target and returns all problems, joined with
// [errors.Join], each an [*Error]. The target of a variable that is unset and
// has no Default keeps its value.
//
// A value must be valid UTF-8 without NUL characters. Load also refuses what
// environment files and copied texts leave on names and values, for every
// variable: carriage returns, quotes around a value, byte order marks and other
// characters that cannot be seen.
//
// Mistakes in the Spec itself are found in any environment. Load then returns
// only them, joined, each a [*ConfigError]. If Unset fails, Load returns its
// errors, and the targets are set.
func (s Spec) Load(lookup Lookup) error {
	results, err := s.resolve(lookup)
	if s.Redactor != nil {
		var secrets []string
		for _, r := range results {
			if r.v.secret() {
				secrets = append(secrets, r.value)
				if r.v.Into.parts != nil {
					secrets = append(secrets, r.v.Into.parts(r.value)...)
				}
			}
		}
		s.Redactor.Add(secrets...)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range results {
		if r.swap != nil {
			r.swap()
		}
		if s.Unset != nil && r.source == fromEnvironment && r.v.secret() {
			if err := s.Unset(r.name); err != nil {
				errs = append(errs, fmt.Errorf("envcheck: %s cannot be unset: %w", r.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Check returns the same errors as [Spec.Load], and leaves the targets as they
// are.
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
	value  string
	given  bool // set to a value that is not empty, even if there is a problem
	errs   []*Error
	swap   func() // exchanges the value with that of the target; nil if there is none
}

// fail adds a problem. The value is not used after it.
func (r *result) fail(name string, reason Reason, detail string) {
	r.swap = nil
	r.errs = append(r.errs, &Error{Name: name, Reason: reason, Detail: detail})
}

// missing reports whether a problem is that the variable is not set.
func (r *result) missing() bool {
	return slices.ContainsFunc(r.errs, func(e *Error) bool { return e.Reason == ReasonMissing })
}

func (s Spec) resolve(lookup Lookup) ([]result, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	results := s.results(lookup)
	var errs []error
	for _, r := range results {
		for _, err := range r.errs {
			errs = append(errs, err)
		}
	}
	return results, errors.Join(errs...)
}

func (s Spec) results(lookup Lookup) []result {
	odd := disguised(lookup)
	results := make([]result, len(s.Vars))
	byName := make(map[string]*result, len(s.Vars))
	for i := range s.Vars {
		v, r := &s.Vars[i], &results[i]
		*r = v.resolve(lookup)
		byName[v.Name] = r
		if len(r.errs) > 0 && !r.missing() || r.source == fromEnvironment || r.source == fromFile {
			continue
		}
		for _, name := range v.names() {
			if set, ok := odd[name]; ok {
				r.errs = nil
				r.fail(r.name, ReasonInvalid, "is set as "+strconv.QuoteToASCII(set)+", with characters that are no part of its name; remove them")
				break
			}
		}
	}
	for _, rule := range s.Rules {
		rule.apply(byName)
	}
	if !slices.ContainsFunc(results, func(r result) bool { return r.missing() }) {
		return results
	}
	near := s.NearMisses(lookup)
	for _, r := range results {
		for _, err := range r.errs {
			if err.Reason == ReasonMissing {
				err.Similar = r.v.misspelt(near)
			}
		}
	}
	return results
}

// resolve finds, reads and checks the value of v.
func (v *Var) resolve(lookup Lookup) (r result) {
	r = result{v: v, name: v.Name}
	value, set := lookup(v.Name)
	r.given = set && value != ""
	set = r.given || set && v.AllowEmpty
	if set {
		r.source, r.value = fromEnvironment, value
	}
	if name := v.fileName(); name != "" {
		if path, ok := lookup(name); ok && path != "" {
			r.given = true
			if set {
				r.fail(r.name, ReasonConflict, "is set together with "+name+"; unset one of them")
				return r
			}
			r.source, r.name, set = fromFile, name, true
			if reason := leftover(path, false); reason != "" {
				r.fail(name, ReasonInvalid, string(reason))
				return r
			}
			var reason CheckReason
			if r.value, reason = readFile(path); reason != "" && !(reason == emptyFile && v.AllowEmpty) {
				r.fail(name, ReasonUnreadable, string(reason))
				return r
			}
		}
	}
	switch {
	case set:
	case v.Required:
		r.fail(r.name, ReasonMissing, "is required"+v.orFile())
		return r
	case v.Default == "":
		return r
	default:
		r.source, r.value = fromDefault, v.Default
	}
	if reason := v.check(&r); reason != "" {
		r.fail(r.name, ReasonInvalid, string(reason))
	}
	return r
}

// check returns the reason to refuse the value of r, and sets r.swap if there
// is none.
func (v *Var) check(r *result) (reason CheckReason) {
	if !utf8.ValidString(r.value) || strings.ContainsRune(r.value, 0) {
		return "must be UTF-8 without NUL characters"
	}
	switch r.source {
	case fromEnvironment:
		reason = leftover(r.value, v.secret())
	case fromFile:
		reason = leftoverOfFile(r.value, v.secret())
	}
	if reason != "" {
		return reason
	}
	swap, err := v.accept(r.value)
	if err != nil {
		return v.explain(err)
	}
	r.swap = swap
	return ""
}

// accept reads and checks the value.
func (v *Var) accept(value string) (swap func(), err error) {
	if v.Into.parse != nil {
		if swap, err = v.Into.parse(value, v.secret()); err != nil {
			return nil, err
		}
	}
	if v.Check != nil && value != "" {
		err = v.Check(value)
	}
	return swap, err
}

// explain returns the part of err that may be shown: the text of a CheckReason.
func (v *Var) explain(err error) CheckReason {
	var reason CheckReason
	if errors.As(err, &reason) {
		return reason
	}
	if v.Into.kind != nil {
		return CheckReason("must be " + v.Into.kind())
	}
	return "is not acceptable"
}
