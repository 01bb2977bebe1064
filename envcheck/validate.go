package envcheck

import (
	"errors"
	"regexp"
)

var nameSyntax = regexp.MustCompile(`\A[A-Z_][A-Z0-9_]*\z`)

// validate returns the mistakes in s.
func (s Spec) validate() error {
	var errs []error
	seen := make(map[string]bool)
	for i := range s.Vars {
		v := &s.Vars[i]
		refuse := func(bad bool, detail string) {
			if bad {
				errs = append(errs, &Error{Name: v.Name, Reason: BadSpec, Detail: "(in the program's own list) " + detail})
			}
		}
		refuse(!nameSyntax.MatchString(v.Name), "is not a name of capital letters, digits and underscores")
		for _, name := range v.names() {
			refuse(seen[name], "is listed twice as "+name)
			seen[name] = true
		}
		refuse(v.Required && v.Default != "", "is required, so that its default never counts")
		refuse(v.secret() && v.Default != "", "is a secret, so that a default would be known to all")
		refuse(v.secret() && v.Example != "", "is a secret, so that an example would be used")
		if v.Default != "" {
			_, err := v.parse(v.Default)
			refuse(err != nil, "has a default that is not acceptable")
		}
	}
	return errors.Join(errs...)
}
