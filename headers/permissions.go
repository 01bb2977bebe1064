package headers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Permissions is a Permissions-Policy: for each feature the origins that may use it. Like CSP it is immutable, ordered,
// and checked by New. The zero value is no header.
type Permissions struct {
	features []directive
}

// With returns a copy in which exactly these origins may use the feature: Self, Any, or origins such as
// "https://video.example". No origin at all denies it to everyone, the page itself included.
//
// Names of features are not checked against a list, for browsers add and drop them all the time: Chromium warns on its
// console about one that it does not know.
func (p Permissions) With(feature string, origins ...Source) Permissions {
	return Permissions{CSP{p.features}.With(feature, origins...).directives}
}

// Without returns a copy that says nothing about the features.
func (p Permissions) Without(features ...string) Permissions {
	return Permissions{CSP{p.features}.Without(features...).directives}
}

// IsZero reports whether no feature is named.
func (p Permissions) IsZero() bool { return len(p.features) == 0 }

// String returns the header's value.
func (p Permissions) String() string {
	var b strings.Builder
	for i, f := range p.features {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.name)
		b.WriteByte('=')
		if len(f.sources) == 1 && f.sources[0] == Any {
			b.WriteByte('*')
			continue
		}
		b.WriteByte('(')
		for i, s := range f.sources {
			if i > 0 {
				b.WriteByte(' ')
			}
			if s == Self {
				b.WriteString("self")
			} else {
				b.WriteString(`"` + string(s) + `"`)
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}

// DenyAll denies every powerful feature that browsers ask the user about, that reaches hardware, or that tells one
// machine from another. All of them are known to current Chromium, so its console stays silent.
func DenyAll() Permissions {
	var p Permissions
	for _, f := range powerful {
		p.features = append(p.features, directive{name: f})
	}
	return p
}

var powerful = []string{
	"accelerometer", "autoplay", "browsing-topics", "camera", "clipboard-read", "clipboard-write",
	"compute-pressure", "display-capture", "encrypted-media", "fullscreen", "gamepad", "geolocation", "gyroscope", "hid",
	"identity-credentials-get", "idle-detection", "keyboard-map", "local-fonts", "magnetometer", "microphone", "midi",
	"otp-credentials", "payment", "picture-in-picture", "publickey-credentials-create", "publickey-credentials-get",
	"screen-wake-lock", "serial", "storage-access", "sync-xhr", "usb", "window-management", "xr-spatial-tracking",
}

var (
	featureName   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	featureOrigin = regexp.MustCompile(`^https?://(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?::[0-9]{1,5})?$`)
)

func (p *Policy) checkPermissions(bad reportFunc) {
	for _, f := range p.Permissions.features {
		field := fmt.Sprintf("Permissions[%q]", f.name)
		if !featureName.MatchString(f.name) {
			bad(field, ConfigMalformed, "the name of a feature has lower-case letters, digits and hyphens")
		}
		for i, s := range f.sources {
			item := fmt.Sprintf("%s[%d]", field, i)
			switch {
			case slices.Contains(f.sources[:i], s):
				bad(item, ConfigDuplicate, "%q", s)
			case s == Self:
			case s == Any:
				if len(f.sources) > 1 {
					bad(item, ConfigConflict, "%q admits every origin", s)
				}
			case !featureOrigin.MatchString(string(s)):
				bad(item, ConfigMalformed, "%q is not an origin", s)
			}
		}
	}
}
