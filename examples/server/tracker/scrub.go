package tracker

import (
	"crypto/x509"
	"io/fs"
	"log/slog"
	"net"
	"os"
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

// unsaid lists the texts that an error may quote and an event must not, in the
// order in which they are replaced. Go puts text from outside the program in
// quotation marks, so every quotation is replaced.
//
// A path ends at ": ", as in Go's errors. Its directories are removed up to the
// last separator, since a directory's name may contain spaces.
var unsaid = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`eyJ[A-Za-z0-9_.-]*|rgrt_[A-Za-z0-9_-]*`), "[token]"},
	{regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"?|`[^`]*`?"), "[text]"},
	{regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s:]*(?::[^\s:]+)*`), "[url]"},
	{regexp.MustCompile(`[A-Za-z0-9_+=-]{32,}`), "[secret]"},
	{regexp.MustCompile(`\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?`), "[addr]"},
	{regexp.MustCompile(`(?:(?:[0-9A-Fa-f]{0,4}:){5,}[0-9A-Fa-f]*|[0-9A-Fa-f:]*::[0-9A-Fa-f:]*(?:%\w+)?)(?:/\d{1,3})?`), "[addr]"},

	// Absolute paths, with a drive or a host (\\HOST\share) too.
	{regexp.MustCompile(`(^|[^\pL\pN.~_-])(?:[A-Za-z]:)?[/\\]` + uptoSeparator), "$1"},
	// The path of a failed call, which may be relative and contain spaces.
	{regexp.MustCompile(`\b([a-z]*(?:open|stat|read|write|rename|mkdir|remove|unlink|link|chmod|chown|sync|close|truncate|lock|access|seek|chdir|rmdir|exec)[a-z]*) ` + uptoSeparator), "$1 "},
	// Other relative paths, a word each.
	{regexp.MustCompile(`\S*[/\\]`), ""},

	{regexp.MustCompile(`\b(lookup) [^\s:]+( on |:)`), "$1 [host]$2"},
	{regexp.MustCompile(`\b((?:tcp|udp|ip)[46]?) [^\s:\[\]]+(:[\w-]+)`), "$1 [host]$2"},
}

// uptoSeparator matches the longest text of one path that ends with a
// separator.
const uptoSeparator = `(?:(?:[^\n:]|:\S)*[/\\])?`

// names matches names with dots: host names, with the user of a mail address,
// but also names of files and of Go.
var names = regexp.MustCompile(`(?:[^\s@]+@)?[\pL\pN_](?:[\pL\pN_-]*[\pL\pN_])?(?:\.[\pL\pN_](?:[\pL\pN_-]*[\pL\pN_])?)+\.?`)

// ours matches the names with a dot that are not replaced: a file of the
// program's kinds, a name of Go, such as fs.PathError, and numbers.
var ours = regexp.MustCompile(`^(?:[\w-]+\.(?:age|conf|crt|css|env|go|html|js|json|key|lock|log|pem|tmp|txt|yaml)|[a-z0-9]+\.[A-Za-z]*[a-z][A-Z][A-Za-z]*|[a-z0-9]+\.[A-Z][a-z]+[A-Za-z]*|v?[\d.]+[a-z]{0,2})$`)

// Clean returns text without secrets, tokens, quotations, addresses, host names
// and directories, cut after 1,024 bytes.
func (t *Tracker) Clean(text string) string {
	// Secrets are replaced first, because a secret may be quoted, or contain
	// text that the loop below replaces.
	t.mu.RLock()
	for _, s := range t.secrets {
		text = strings.ReplaceAll(text, s, "[secret]")
	}
	t.mu.RUnlock()
	if t.machine != nil {
		text = t.machine.ReplaceAllString(text, "[host]")
	}
	for _, u := range unsaid {
		text = u.what.ReplaceAllString(text, u.as)
	}
	text = names.ReplaceAllStringFunc(text, func(name string) string {
		if ours.MatchString(name) {
			return name
		}
		return "[host]"
	})
	if len(text) > maxReported {
		text = strings.ToValidUTF8(text[:maxReported], "") + "…"
	}
	return text
}

// textOf returns the text of a log's attribute. If that is an error which names
// a path or a host, the text has the path's last element or "[host]" instead:
// only the error knows where a name with spaces begins.
func textOf(v slog.Value) string {
	text := v.Resolve().String()
	if err, ok := v.Resolve().Any().(error); ok {
		for name, as := range named(err) {
			text = strings.ReplaceAll(text, name, as)
		}
	}
	return text
}

// named returns the paths and hosts that err and the errors below it name, each
// with its replacement.
func named(err error) map[string]string {
	found := map[string]string{}
	add := func(name, as string) {
		if name != "" && name != as {
			found[name] = as
		}
	}
	for list := []error{err}; len(list) > 0; list = list[1:] {
		switch e := list[0].(type) {
		case *fs.PathError:
			add(e.Path, last(e.Path))
		case *os.LinkError:
			add(e.Old, last(e.Old))
			add(e.New, last(e.New))
		case *net.DNSError:
			add(e.Name, "[host]")
			add(e.Server, "[addr]")
		case x509.HostnameError:
			add(e.Host, "[host]")
		}
		switch e := list[0].(type) {
		case interface{ Unwrap() error }:
			if below := e.Unwrap(); below != nil {
				list = append(list, below)
			}
		case interface{ Unwrap() []error }:
			list = append(list, e.Unwrap()...)
		}
	}
	return found
}

// last returns the last element of a path, with the separators of all systems.
func last(path string) string {
	path = strings.TrimRight(path, `/\`)
	return path[strings.LastIndexAny(path, `/\`)+1:]
}
