package headers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Permissions is a Permissions-Policy: a list of features, each with the
// origins that may use it. It is immutable and keeps its order, as [CSP] does,
// and [New] checks it. The zero value omits the header.
type Permissions struct {
	features []directive
}

// With returns a copy in which exactly these origins may use the feature:
// [Self], [Any], or origins such as "https://video.example". Without origins,
// no page may use it, not even the page itself.
//
// Names of features are not compared with a list, because browsers often add
// and drop features. Chromium warns on its console if it does not know a name.
func (p Permissions) With(feature string, origins ...Source) Permissions {
	return Permissions{CSP{p.features}.With(feature, origins...).directives}
}

// Without returns a copy without the named features.
func (p Permissions) Without(features ...string) Permissions {
	return Permissions{CSP{p.features}.Without(features...).directives}
}

// IsZero reports whether there is no feature.
func (p Permissions) IsZero() bool { return len(p.features) == 0 }

// String returns the value of the header.
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

// DenyAll denies all features that are powerful: those for which browsers ask
// the user, that access hardware, or that help to identify a machine. Current
// versions of Chromium know all of them, so there are no warnings on the
// console.
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
