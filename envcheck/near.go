package envcheck

import (
	"os"
	"strings"
)

// NearMiss is a name that is probably misspelt: its variable is set and not in
// the [Spec], and it resembles the name of a variable in the Spec that is not
// set.
type NearMiss struct {
	Set  string // the name that is set; it may have any characters
	Like string // the name that was probably meant
}

// NearMisses returns names that are probably misspelt, in the order of the
// Spec. Load adds those that resemble a missing required variable to its error.
// The others are no errors, since an environment holds many names of other
// programs; log them as warnings. The names come from [os.Environ] and from the
// lookups of this package; a name counts only if the lookup finds it.
func (s Spec) NearMisses(lookup Lookup) []NearMiss {
	known := make(map[string]bool)
	for i := range s.Vars {
		for _, name := range s.Vars[i].names() {
			known[name] = true
		}
	}
	type stranger struct {
		name   string
		folded []rune
	}
	var strangers []stranger
	for _, name := range setNames(lookup) {
		if !known[name] && !standard[name] && isSet(lookup, name) {
			strangers = append(strangers, stranger{name, fold(name)})
			known[name] = true // a name in two places is reported once
		}
	}
	var near []NearMiss
	for i := range s.Vars {
		v := &s.Vars[i]
		if isSet(lookup, v.Name) || isSet(lookup, v.fileName()) {
			continue
		}
		for _, name := range v.names() {
			folded := fold(name)
			for _, stranger := range strangers {
				if similar(stranger.folded, folded) {
					near = append(near, NearMiss{stranger.name, name})
				}
			}
		}
	}
	return near
}

// setNames returns the names of the process's environment and those that the
// lookup holds.
func setNames(lookup Lookup) []string {
	names := heldNames(lookup)
	for _, variable := range os.Environ() {
		if name, _, ok := strings.Cut(variable, "="); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// disguised returns the names that are set with characters which a file or a
// copied text leaves on them, by the names without these.
func disguised(lookup Lookup) map[string]string {
	var odd map[string]string
	for _, name := range setNames(lookup) {
		if validName(name) || !isSet(lookup, name) {
			continue
		}
		if plain := bare(name); plain != name {
			if odd == nil {
				odd = make(map[string]string)
			}
			odd[plain] = name
		}
	}
	return odd
}

// standard are names that crypto/x509 reads in every Go program. They are
// spelled as intended, even if they resemble a name in the Spec.
var standard = map[string]bool{"SSL_CERT_FILE": true, "SSL_CERT_DIR": true}

func (v *Var) names() []string {
	if name := v.fileName(); name != "" {
		return []string{v.Name, name}
	}
	return []string{v.Name}
}

func isSet(lookup Lookup, name string) bool {
	if name == "" {
		return false
	}
	value, ok := lookup(name)
	return ok && value != ""
}

// misspelt returns the names among near that resemble the name of v.
func (v *Var) misspelt(near []NearMiss) []string {
	var names []string
	for _, n := range near {
		if n.Like == v.Name || n.Like == v.fileName() {
			names = append(names, n.Set)
		}
	}
	return names
}

// similar reports whether x is a likely misspelling of y. Both are folded, so
// that case, underscores, hyphens, dots, spaces, quotes and what cannot be seen
// do not count. Of every four letters, fewer than one may be wrong, missing,
// added or swapped with its neighbour, and at most three in all. Names of up to
// four letters must be equal, since many short names differ by one letter only.
func similar(x, y []rune) bool {
	limit := min((len(y)-1)/4, 3)
	return max(len(x), len(y))-min(len(x), len(y)) <= limit && distance(x, y) <= limit
}

// fold returns the bare name in capitals, without underscores, hyphens and
// dots.
func fold(name string) []rune {
	return []rune(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case r == '_' || r == '-' || r == '.':
			return -1
		}
		return r
	}, bare(name)))
}

// distance returns the optimal string alignment distance of a and b, which is
// the restricted form of the Damerau-Levenshtein distance.
func distance(a, b []rune) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
