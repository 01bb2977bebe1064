package envcheck

import (
	"errors"
	"fmt"
	"slices"
)

// validName reports whether a variable of a Spec can have the name.
func validName(name string) bool {
	for i, c := range []byte(name) {
		if !(c == '_' || 'A' <= c && c <= 'Z' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return name != ""
}

// validate returns the mistakes in s.
func (s Spec) validate() error {
	var errs []error
	for _, name := range s.unknown {
		errs = append(errs, &ConfigError{fmt.Sprintf("Spec.Only(%q)", name),
			fmt.Errorf("%w: the Spec has no such variable", ConfigUnknown)})
	}
	seen := make(map[string]bool, 2*len(s.Vars))
	for i := range s.Vars {
		v := &s.Vars[i]
		refuse := func(field string, reason ConfigReason, detail string) {
			errs = append(errs, &ConfigError{v.field(field), fmt.Errorf("%w: %s", reason, detail)})
		}
		if !validName(v.Name) {
			refuse("Name", ConfigMalformed, "a name has capital letters, digits and underscores")
		}
		for _, name := range v.names() {
			if seen[name] {
				refuse("Name", ConfigDuplicate, "two variables would read "+name)
			}
			seen[name] = true
		}
		for j, word := range v.Into.words {
			if slices.Contains(v.Into.words[:j], word) {
				refuse("Into", ConfigDuplicate, "the word "+word)
			}
		}
		if v.Into.mistake != "" {
			refuse("Into", ConfigMalformed, v.Into.mistake)
		}
		switch {
		case v.Default == "":
		case v.Required:
			refuse("Default", ConfigConflict, "the variable is required, so its default is never used")
		case v.secret():
			refuse("Default", ConfigConflict, "the variable is a secret, and everyone would know its default")
		case !v.Into.local:
			if _, err := v.accept(v.Default); err != nil {
				errs = append(errs, &ConfigError{v.field("Default"), v.explain(err)})
			}
		}
		if v.secret() && v.Example != "" {
			refuse("Example", ConfigConflict, "the variable is a secret, and people would use its example")
		}
	}
	return errors.Join(append(errs, s.validateRules()...)...)
}

// field returns the path of a field of v in the Spec.
func (v *Var) field(name string) string { return fmt.Sprintf("Spec.Vars[%q].%s", v.Name, name) }
