package headers_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/headers"
)

// ahead are features that DenyAll denies and that no browser supports by MDN's
// list. Chromium 156 knows each of them: document.featurePolicy.features().
var ahead = []string{
	"digital-credentials-create", "digital-credentials-get", "keyboard-map", "language-detector", "magnetometer",
	"media-playback-while-not-visible", "speaker-selection", "sync-xhr", "translator",
}

// statement is one version from which a browser supports a feature.
type statement struct {
	Added   any   `json:"version_added"`   // a version, "preview", false or null
	Removed any   `json:"version_removed"` // a version, if it is gone
	Flags   []any `json:"flags"`           // what users must turn on first
}

// statements reads one statement or a list of them.
type statements []statement

func (s *statements) UnmarshalJSON(text []byte) error {
	if strings.HasPrefix(string(text), "[") {
		return json.Unmarshal(text, (*[]statement)(s))
	}
	*s = make(statements, 1)
	return json.Unmarshal(text, &(*s)[0])
}

type compat struct {
	Compat struct {
		Support map[string]statements `json:"support"`
		Status  struct {
			Deprecated bool `json:"deprecated"`
		} `json:"status"`
	} `json:"__compat"`
}

func (c compat) isSupported() bool {
	for _, list := range c.Compat.Support {
		for _, s := range list {
			if version, ok := s.Added.(string); ok && version != "preview" && s.Removed == nil && len(s.Flags) == 0 {
				return true
			}
		}
	}
	return false
}

// DenyAll denies every feature that a browser supports by MDN's list, and no
// feature that is deprecated, gone, or behind a flag: Chromium would warn about
// it on the console of every page.
func TestDenyAll(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("node_modules", "@mdn", "browser-compat-data", "data.json"))
	if err != nil {
		testkit.Missing(t, "MDN's list is missing: npm ci --ignore-scripts in examples/interop/headers")
	}
	var list struct {
		HTTP struct {
			Headers struct {
				Policy map[string]compat `json:"Permissions-Policy"`
			} `json:"headers"`
		} `json:"http"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	known := list.HTTP.Headers.Policy
	delete(known, "__compat")
	delete(known, "wildcards") // a form of origin, no feature
	if len(known) < 40 {
		t.Fatalf("MDN's list has only %d features: has its form changed?", len(known))
	}
	var denied []string
	for item := range strings.SplitSeq(headers.DenyAll().String(), ", ") {
		name, origins, _ := strings.Cut(item, "=")
		if origins != "()" {
			t.Errorf("%s is not denied", item)
		}
		denied = append(denied, name)
	}
	var want []string
	for name, c := range known {
		if c.isSupported() && !c.Compat.Status.Deprecated {
			want = append(want, name)
		}
	}
	for _, name := range ahead {
		if slices.Contains(want, name) {
			t.Errorf("%s is in MDN's list: remove it from ahead", name)
		}
	}
	want = append(want, ahead...)
	for _, name := range want {
		if !slices.Contains(denied, name) {
			t.Errorf("%s is not denied", name)
		}
	}
	for _, name := range denied {
		if !slices.Contains(want, name) {
			t.Errorf("%s is denied, and no browser supports it", name)
		}
	}
}
