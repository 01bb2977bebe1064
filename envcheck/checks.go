package envcheck

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Match returns a check that accepts a value if re matches all of it. The rule
// describes such values in errors, after the words "must be", such as "letters
// and digits". To check the items of a list, use it with [Each].
func Match(re *regexp.Regexp, rule string) func(string) error {
	whole := regexp.MustCompile(`\A(?:` + re.String() + `)\z`)
	return func(value string) error {
		if !whole.MatchString(value) {
			return CheckReason("must be " + rule)
		}
		return nil
	}
}

// Each returns a check that applies another check to every item of a list
// separated by commas, without the spaces around the item. The check returns
// the first error. If that is a [CheckReason], it names the place of the item.
func Each(check func(string) error) func(string) error {
	return func(value string) error {
		place := 0
		for item := range strings.SplitSeq(value, ",") {
			place++
			err := check(strings.TrimSpace(item))
			if reason, ok := errors.AsType[CheckReason](err); ok && strings.Contains(value, ",") {
				return CheckReason(fmt.Sprintf("item %d %s", place, reason))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
