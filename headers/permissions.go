package headers

import (
	"regexp"
	"slices"
	"strings"
)

// Permissions is a Permissions-Policy: a list of features, each with the
// origins that may use it. It is immutable and keeps its order, as [CSP] does,
// and [New] checks it. The zero value omits the header.
type Permissions struct {
	features []directive
	reportTo string
}

// With returns a copy in which exactly these origins may use the feature:
// [Self], [Any], or [Self] and origins such as "https://video.example". Without
// origins, no page may use it, not even the page itself. A frame of another
// origin needs the feature in its attribute allow as well.
//
// Names of features are not compared with a list, because browsers often add
// and drop features. Chromium warns on its console if it does not know a name.
func (p Permissions) With(feature string, origins ...Source) Permissions {
	return Permissions{CSP{p.features}.With(feature, origins...).directives, p.reportTo}
}

// Without returns a copy without the named features.
func (p Permissions) Without(features ...string) Permissions {
	return Permissions{CSP{p.features}.Without(features...).directives, p.reportTo}
}

// ReportTo returns a copy in which browsers report violations of every feature
// to the endpoint, which [Policy.ReportingEndpoints] defines. The header has no
// common place for the endpoint, so the name is repeated for each feature.
// Without ReportTo, Chromium sends the reports to the endpoint called
// "default", if there is one.
func (p Permissions) ReportTo(endpoint string) Permissions {
	p.reportTo = endpoint
	return p
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
		b.WriteString(allowlist(f.sources))
		if p.reportTo != "" {
			b.WriteString(";report-to=" + p.reportTo)
		}
	}
	return b.String()
}

// allowlist returns the value of a feature.
func allowlist(origins []Source) string {
	if len(origins) == 1 && origins[0] == Any {
		return "*"
	}
	items := make([]string, len(origins))
	for i, s := range origins {
		if s == Self {
			items[i] = "self"
		} else {
			items[i] = `"` + string(s) + `"`
		}
	}
	return "(" + strings.Join(items, " ") + ")"
}

// DenyAll denies every feature that a current browser supports without a flag.
// No page can use one, unless you allow it again with [Permissions.With]. Some
// of them are harmless, and a page may need them: autoplay, fullscreen,
// picture-in-picture, web-share, unload (events), and cross-origin-isolated
// (SharedArrayBuffer and exact clocks).
//
// The list is that of Chromium 156 and of MDN's browser-compat-data in November
// 2026, without client hints, which are sent only if Accept-CH asks for them.
// Chromium warns on its console if its platform lacks a feature: on Linux it
// knows neither bluetooth nor web-share.
func DenyAll() Permissions {
	var p Permissions
	for _, f := range features {
		p.features = append(p.features, directive{name: f})
	}
	return p
}

// features are those that DenyAll denies.
var features = []string{
	"accelerometer", "aria-notify", "autoplay", "bluetooth", "camera", "captured-surface-control",
	"ch-ua-high-entropy-values", "clipboard-read", "clipboard-write", "compute-pressure", "cross-origin-isolated",
	"deferred-fetch", "deferred-fetch-minimal", "digital-credentials-create", "digital-credentials-get",
	"display-capture", "encrypted-media", "fullscreen", "gamepad", "geolocation", "gyroscope", "hid",
	"identity-credentials-get", "idle-detection", "keyboard-map", "language-detector", "language-model",
	"local-fonts", "local-network", "local-network-access", "loopback-network", "magnetometer",
	"media-playback-while-not-visible", "microphone", "midi", "on-device-speech-recognition", "otp-credentials",
	"payment", "picture-in-picture", "private-state-token-issuance", "private-state-token-redemption",
	"publickey-credentials-create", "publickey-credentials-get", "screen-wake-lock", "serial", "speaker-selection",
	"storage-access", "summarizer", "sync-xhr", "translator", "unload", "usb", "web-share", "window-management",
	"xr-spatial-tracking",
}

// otherFeatures need a flag or are gone. Reports of violations may name them.
var otherFeatures = []string{
	"all-screens-capture", "ambient-light-sensor", "attribution-reporting", "battery", "browsing-topics",
	"document-domain", "interest-cohort", "join-ad-interest-group", "private-aggregation", "proofreader", "rewriter",
	"run-ad-auction", "shared-storage", "shared-storage-select-url", "smart-card", "sub-apps", "vertical-scroll",
	"web-app-installation", "web-printing", "window-placement", "writer",
}

var (
	featureName   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	featureOrigin = regexp.MustCompile(`^https?://(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?::[0-9]{1,5})?$`)
)

func (p Permissions) check(path string, bad reportFunc) {
	for _, f := range p.features {
		field := index(path, f.name)
		if !featureName.MatchString(f.name) {
			bad(field, ConfigMalformed, "the name of a feature has lower-case letters, digits and hyphens")
		}
		if len(f.sources) > 0 && !slices.Contains(f.sources, Self) && !slices.Contains(f.sources, Any) {
			bad(field, ConfigConflict, "a frame may use a feature only if the page may use it too; add Self")
		}
		for i, s := range f.sources {
			item := index(field, i)
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
