package tracker

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/getsentry/sentry-go"
)

// scrubbed returns a new event with the parts of e that may leave this machine:
// the error and its place in the code. All other parts are left out, also those
// that a later version of the library adds.
func (t *Tracker) scrubbed(e *sentry.Event) *sentry.Event {
	clean := sentry.NewEvent()
	clean.EventID, clean.Timestamp, clean.Level, clean.Platform = e.EventID, e.Timestamp, e.Level, e.Platform
	clean.Environment, clean.Release = e.Environment, e.Release
	clean.Sdk = sentry.SdkInfo{Name: e.Sdk.Name, Version: e.Sdk.Version}
	clean.Message = t.Clean(e.Message)
	if kind, ok := e.Tags["type"]; ok {
		clean.Tags = map[string]string{"type": t.Clean(kind)}
	}
	for _, x := range e.Exception {
		x = sentry.Exception{Type: t.Clean(x.Type), Value: t.Clean(x.Value), Stacktrace: x.Stacktrace}
		if x.Stacktrace != nil {
			x.Stacktrace = &sentry.Stacktrace{Frames: places(x.Stacktrace.Frames)}
		}
		clean.Exception = append(clean.Exception, x)
	}
	return clean
}

// places returns frames without variables, source and the paths of the machine
// that built the program. It leaves out the frames between the call of the log
// and this package.
func places(frames []sentry.Frame) (kept []sentry.Frame) {
	for _, f := range frames {
		if f.Module == "log/slog" || strings.HasSuffix(f.Module, "/server/tracker") {
			continue
		}
		file := f.AbsPath
		if file == "" {
			file = f.Filename
		}
		kept = append(kept, sentry.Frame{
			Function: f.Function, Module: f.Module, Filename: filepath.Base(file), Lineno: f.Lineno,
			InApp: f.Module == "main" || strings.HasPrefix(f.Module, "github.com/relayguard/"),
		})
	}
	return kept
}

// unsaid lists the texts that an error may quote and an event must not. Go puts
// text from outside the program in quotation marks, so every quotation is
// replaced.
var unsaid = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`eyJ[A-Za-z0-9_.-]*|rgrt_[A-Za-z0-9_-]*`), "[token]"},
	{regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"?|`[^`]*`?"), "[text]"},
	{regexp.MustCompile(`[A-Za-z0-9_+=-]{32,}`), "[secret]"},
	{regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}`), "[addr]"},
	{regexp.MustCompile(`(?:[0-9A-Fa-f]{0,4}:){5,}[0-9A-Fa-f]*|[0-9A-Fa-f:]*::[0-9A-Fa-f:]*(?:%\w+)?`), "[addr]"},
	{regexp.MustCompile(`(^|[\s=:(\[,])/(?:[^\s/:,]+/)+`), "$1"}, // a path's directories
}

// Clean returns text without secrets, tokens, quotations, addresses and
// directories, cut after 1,024 bytes.
func (t *Tracker) Clean(text string) string {
	// Secrets are replaced first, because a secret may be quoted, or contain
	// text that the loop below replaces.
	t.mu.RLock()
	for _, s := range t.secrets {
		text = strings.ReplaceAll(text, s, "[secret]")
	}
	t.mu.RUnlock()
	for _, u := range unsaid {
		text = u.what.ReplaceAllString(text, u.as)
	}
	if len(text) > maxReported {
		text = strings.ToValidUTF8(text[:maxReported], "") + "…"
	}
	return text
}
