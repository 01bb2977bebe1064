package envcheck

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Rule is about several variables of a [Spec]. It is made by [Together],
// [OneOf], [AtMostOne], [RequiredIf] or [RuleFunc].
//
// For a rule, a variable is set if it or its NAME_FILE has a value that is not
// empty. A Default does not count.
type Rule struct {
	names    []string
	values   []string // of RequiredIf
	requires []string // the names that it can make required
	mistake  string

	// says returns the rule as a sentence for the documentation of a variable,
	// or "". The names and values in it are shown by show.
	says func(name string, show func(string) string) string

	// ifValid reports whether the rule reads values, and so holds only between
	// variables without problems.
	ifValid bool

	// broken adds the problems to the results of the named variables, which are
	// in the order of names.
	broken func(results []*result)
}

// apply adds the problems that come from the rule.
func (r Rule) apply(byName map[string]*result) {
	results := make([]*result, len(r.names))
	for i, name := range r.names {
		results[i] = byName[name]
		if len(results[i].errs) > 0 && (r.ifValid || results[i].missing()) {
			return
		}
	}
	r.broken(results)
}

// Together requires that all the variables are set or none, such as the two
// files of a certificate.
func Together(names ...string) Rule {
	return Rule{names: names, requires: names,
		says: func(_ string, show func(string) string) string {
			if len(names) == 2 {
				return "Set both " + join(names, "and", show) + ", or neither."
			}
			return "Set all of " + join(names, "and", show) + ", or none."
		},
		broken: func(results []*result) {
			first := slices.IndexFunc(results, given)
			for _, r := range results {
				if first >= 0 && !r.given {
					r.fail(r.v.Name, ReasonMissing, "is required together with "+names[first]+r.v.orFile())
				}
			}
		},
	}
}

// OneOf requires that exactly one of the variables is set.
func OneOf(names ...string) Rule {
	most := AtMostOne(names...)
	return Rule{names: names, requires: names,
		says: func(_ string, show func(string) string) string {
			return "Set exactly one of " + join(names, "and", show) + "."
		},
		broken: func(results []*result) {
			if !slices.ContainsFunc(results, given) {
				results[0].fail(names[0], ReasonMissing, "is required; set it or "+join(names[1:], "or", plainly))
			}
			most.broken(results)
		},
	}
}

// AtMostOne requires that no two of the variables are set.
func AtMostOne(names ...string) Rule {
	return Rule{names: names,
		says: func(_ string, show func(string) string) string {
			return "Set at most one of " + join(names, "and", show) + "."
		},
		broken: func(results []*result) {
			first := slices.IndexFunc(results, given)
			for i, r := range results {
				if i > first && r.given {
					r.fail(r.v.Name, ReasonConflict, "is set together with "+names[first]+"; unset one of them")
				}
			}
		},
	}
}

// RequiredIf requires the variable name if the variable other is set. With
// values, it requires name only if other has one of the values, also as its
// Default.
func RequiredIf(name, other string, values ...string) Rule {
	condition := func(show func(string) string) string {
		if len(values) == 0 {
			return "required if " + show(other) + " is set"
		}
		return "required if " + show(other) + " is " + join(values, "or", show)
	}
	return Rule{names: []string{name, other}, values: values, requires: []string{name},
		says: func(of string, show func(string) string) string {
			if of != name {
				return ""
			}
			return sentence(condition(show))
		},
		broken: func(results []*result) {
			r, o := results[0], results[1]
			applies := o.given
			if len(values) > 0 {
				applies = len(o.errs) == 0 && slices.Contains(values, o.value)
			}
			if applies && !r.given {
				r.fail(name, ReasonMissing, "is "+condition(plainly)+r.v.orFile())
			}
		},
	}
}

// RuleFunc makes a rule of a function. It is called if all the named variables
// are free of problems, and returns whether their values are allowed together.
// Meanwhile their targets have the values of the environment; it must read no
// other targets. The text describes the rule in errors and documents, after the
// first name, such as "must not be below LOW".
func RuleFunc(text string, ok func() bool, names ...string) Rule {
	rule := Rule{names: names, ifValid: true,
		says: func(of string, show func(string) string) string {
			if of != names[0] {
				return ""
			}
			return sentence(anyName.ReplaceAllStringFunc(text, func(word string) string {
				if slices.Contains(names, word) {
					return show(word)
				}
				return word
			}))
		},
		broken: func(results []*result) {
			swap := func() {
				for _, r := range results {
					if r.swap != nil {
						r.swap()
					}
				}
			}
			swap()
			allowed := ok()
			swap()
			if !allowed {
				results[0].fail(results[0].name, ReasonInvalid, text)
			}
		},
	}
	if ok == nil || text == "" {
		rule.mistake = "a RuleFunc needs a text and a function"
	}
	return rule
}

var anyName = regexp.MustCompile(`\b[A-Z_][A-Z0-9_]*\b`)

func given(r *result) bool { return r.given }

func plainly(text string) string { return text }

// sentence returns text with a capital letter and a full stop.
func sentence(text string) string {
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// join returns the items as a list of prose.
func join(items []string, word string, show func(string) string) string {
	shown := make([]string, len(items))
	for i, item := range items {
		shown[i] = show(item)
	}
	if len(shown) < 2 {
		return strings.Join(shown, "")
	}
	last := len(shown) - 1
	return strings.Join(shown[:last], ", ") + " " + word + " " + shown[last]
}

// validateRules returns the mistakes in the rules.
func (s Spec) validateRules() (errs []error) {
	if len(s.Rules) == 0 {
		return nil
	}
	vars := make(map[string]*Var, len(s.Vars))
	for i := range s.Vars {
		vars[s.Vars[i].Name] = &s.Vars[i]
	}
	for i, rule := range s.Rules {
		refuse := func(reason ConfigReason, detail string) {
			errs = append(errs, &ConfigError{fmt.Sprintf("Spec.Rules[%d]", i), fmt.Errorf("%w: %s", reason, detail)})
		}
		switch {
		case rule.mistake != "":
			refuse(ConfigMalformed, rule.mistake)
		case len(rule.names) == 0, len(rule.names) == 1 && !rule.ifValid:
			refuse(ConfigMalformed, "it names too few variables")
		}
		for j, name := range rule.names {
			v, condition := vars[name], len(rule.values) > 0 && j == 1
			switch {
			case slices.Contains(rule.names[:j], name):
				refuse(ConfigDuplicate, "the name "+name)
			case v == nil:
				refuse(ConfigUnknown, "the Spec has no variable "+name)
			case rule.ifValid: // it may be about any variables
			case v.Required && !condition:
				refuse(ConfigConflict, name+" is required in any case")
			case v.secret() && condition:
				refuse(ConfigConflict, name+" is a secret, and the rule would show its value")
			}
		}
	}
	return errs
}
