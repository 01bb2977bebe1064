package envcheck

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Lookup returns the value of a variable and whether it is set, as
// [os.LookupEnv] does. Those of this package also let [Spec.NearMisses] find
// misspelt names in what they hold.
type Lookup = func(name string) (value string, ok bool)

// held begins the answer of a Lookup of this package to the empty name, which
// no variable can have: the names that it holds, each after a NUL. A func has
// no other way to tell them.
const held = "\x00held"

// FromMap returns a Lookup of the variables in a copy of vars.
func FromMap(vars map[string]string) Lookup {
	vars = maps.Clone(vars)
	names := held + "\x00" + strings.Join(slices.Sorted(maps.Keys(vars)), "\x00")
	return func(name string) (string, bool) {
		if name == "" {
			return names, false
		}
		value, ok := vars[name]
		return value, ok
	}
}

// Chain returns a Lookup that asks the lookups in turn. The first one in which
// the variable is set wins, also if its value is empty there. A nil Lookup is
// left out.
func Chain(lookups ...Lookup) Lookup {
	lookups = slices.DeleteFunc(slices.Clone(lookups), func(l Lookup) bool { return l == nil })
	return func(name string) (string, bool) {
		if name == "" {
			all := held
			for _, lookup := range lookups {
				for _, name := range heldNames(lookup) {
					all += "\x00" + name
				}
			}
			return all, false
		}
		for _, lookup := range lookups {
			if value, ok := lookup(name); ok {
				return value, true
			}
		}
		return "", false
	}
}

// heldNames returns the names that a Lookup of this package holds.
func heldNames(lookup Lookup) []string {
	answer, _ := lookup("")
	names, ok := strings.CutPrefix(answer, held+"\x00")
	if !ok {
		return nil
	}
	return strings.Split(names, "\x00")
}

// Credentials returns a Lookup of the credentials that systemd passes to a
// service with LoadCredential=, SetCredential= and their encrypted forms: the
// files in $CREDENTIALS_DIRECTORY. A credential has the name of its variable,
// such as LoadCredential=JWT_SECRET:/etc/relay/jwt; those with other characters
// in their names are ignored. Line ends at the end of a credential are removed.
// It may have up to 64 KiB.
//
// If the process has no credentials, the Lookup is empty, and there is no
// error. The Lookup is never nil.
func Credentials() (Lookup, error) {
	vars := make(map[string]string)
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return FromMap(vars), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return FromMap(nil), &Error{Name: "CREDENTIALS_DIRECTORY", Reason: ReasonUnreadable, Detail: "names a directory that cannot be read"}
	}
	for _, e := range entries {
		name := e.Name()
		if !validName(name) {
			continue
		}
		value, reason := readFile(filepath.Join(dir, name))
		if reason != "" && reason != emptyFile {
			return FromMap(nil), &Error{Name: name, Reason: ReasonUnreadable, Detail: "is a credential of systemd that " + string(reason)}
		}
		vars[name] = value
	}
	return FromMap(vars), nil
}
