package envcheck

import (
	"regexp"
	"strings"
)

// Match accepts what re matches as a whole; rule says what that is, to be read
// after "must be".
func Match(re *regexp.Regexp, rule string) func(string) error {
	whole := regexp.MustCompile(`\A(?:` + re.String() + `)\z`)
	return func(value string) error {
		if !whole.MatchString(value) {
			return CheckReason("must be " + rule)
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
