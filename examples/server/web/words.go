package web

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

//go:embed languages
var languages embed.FS

// words are the sentences of one language, by name. The value of one that
// depends on a number is a map with a text for each form that the language has,
// by the names of Unicode: zero, one, two, few, many and other.
type words map[string]any

var (
	placeholder = regexp.MustCompile(`\{\w*\}`)
	forms       = []string{"zero", "one", "two", "few", "many", "other"}
)

// shippedWords returns the sentences of a language, or nil if it is not shipped.
func shippedWords(language string) words {
	data, err := languages.ReadFile("languages/" + language + ".json")
	if err != nil {
		return nil
	}
	var w words
	_ = json.Unmarshal(data, &w) // a test reads all of them
	return w
}

// parseWords reads sentences, and requires the same names and values in them as
// in English.
func parseWords(data []byte) (words, error) {
	var w words
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("is not a JSON object: %w", err)
	}
	english := shippedWords("en")
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(w)) {
		if _, ok := english[name]; !ok {
			problems = append(problems, fmt.Errorf("%q: no sentence has that name", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(english)) {
		if problem := compare(w[name], english[name]); problem != "" {
			problems = append(problems, fmt.Errorf("%q: %s", name, problem))
		}
	}
	return w, errors.Join(problems...)
}

// compare returns the problem of a sentence beside the English one, or "".
func compare(got, english any) string {
	want := texts(english)
	switch got := got.(type) {
	case nil:
		return "is missing"
	case string:
		if len(want) == 1 {
			return compareText(got, want[0], true)
		}
	case map[string]any:
		if len(want) == 1 {
			return "must be a text"
		}
		if _, ok := got["other"]; !ok {
			return `needs the form "other"`
		}
		for form, text := range got {
			if s, ok := text.(string); !ok || !slices.Contains(forms, form) {
				return fmt.Sprintf("the form %q must be a text, and one of %s", form, strings.Join(forms, ", "))
			} else if problem := compareText(s, want[0]+want[1], form == "other"); problem != "" {
				return fmt.Sprintf("the form %q %s", form, problem)
			}
		}
		return ""
	}
	return `must be an object with a text for each form: {"one": "…", "other": "…"}`
}

// compareText requires the same values in a text as in English. If not all of
// them are required, it may have fewer.
func compareText(got, english string, all bool) string {
	if problem := line(got, maxSentence); problem != "" {
		return problem
	}
	have, want := placeholder.FindAllString(got, -1), placeholder.FindAllString(english, -1)
	for _, p := range have {
		if !slices.Contains(want, p) {
			return "has a value that the page does not fill in: " + p
		}
	}
	for _, p := range want {
		if all && !slices.Contains(have, p) {
			return "lacks the value " + p
		}
	}
	return ""
}

// texts returns the texts of a sentence.
func texts(sentence any) (all []string) {
	switch s := sentence.(type) {
	case string:
		return []string{s}
	case map[string]any:
		for _, form := range slices.Sorted(maps.Keys(s)) {
			all = append(all, s[form].(string))
		}
	}
	return all
}

// Say returns a sentence that has neither forms nor values.
func (w words) Say(name string) string {
	s, _ := w[name].(string)
	return s
}

// Fill returns a sentence without forms, with a value in the place of its name.
func (w words) Fill(name, key, value string) string {
	return strings.ReplaceAll(w.Say(name), "{"+key+"}", value)
}

// json returns the sentences as JSON that is a JavaScript expression too.
func (w words) json() []byte {
	data, _ := json.Marshal(w) // texts and maps of texts only
	return data
}
