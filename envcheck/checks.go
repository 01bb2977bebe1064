package envcheck

import (
	"regexp"
	"slices"
	"strings"
)

// OneOf accepts exactly these values.
func OneOf(values ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(values, value) {
			return Problem("must be " + either(values))
		}
		return nil
	}
}

func either(values []string) string {
	if len(values) < 2 {
		return strings.Join(values, "")
	}
	last := len(values) - 1
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// Match accepts what re matches as a whole; rule says what that is, to be read
// after "must be".
func Match(re *regexp.Regexp, rule string) func(string) error {
	whole := regexp.MustCompile(`\A(?:` + re.String() + `)\z`)
	return func(value string) error {
		if !whole.MatchString(value) {
			return Problem("must be " + rule)
		}
		return nil
	}
}

// Each applies check to every item of a list separated by commas.
func Each(check func(string) error) func(string) error {
	return func(value string) error {
		for item := range strings.SplitSeq(value, ",") {
			if err := check(strings.TrimSpace(item)); err != nil {
				return err
			}
		}
		return nil
	}
}

// All accepts what every check accepts, and returns the first error.
func All(checks ...func(string) error) func(string) error {
	return func(value string) error {
		for _, check := range checks {
			if err := check(value); err != nil {
				return err
			}
		}
		return nil
	}
}
