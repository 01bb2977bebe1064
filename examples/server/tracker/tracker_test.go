package tracker_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/tracker"
)

const secret = "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd"

func protecting(secrets ...string) *tracker.Tracker {
	t := new(tracker.Tracker)
	t.Protect(secrets...)
	return t
}

func report(t *testing.T, in *testkit.Ingest) *tracker.Tracker {
	t.Helper()
	errs, err := tracker.New(tracker.Config{DSN: in.DSN})
	if err != nil {
		t.Fatal(err)
	}
	return errs
}

// An ingest that does not answer costs no more than a queue of events, and a
// moment at the stop.
func TestDeadIngest(t *testing.T) {
	for _, row := range []struct {
		name    string
		answers bool // late, but before the stop
	}{{"never", false}, {"late", true}} {
		t.Run(row.name, func(t *testing.T) {
			hold := make(chan struct{})
			in := testkit.NewIngest(t, hold)
			release := sync.OnceFunc(func() { close(hold) })
			t.Cleanup(release) // before the ingest waits for its requests
			errs := report(t, in)
			errs.SetPace(rate.NewLimiter(rate.Inf, 0)) // so that only the queue bounds the events
			log := slog.New(errs.Handler(slog.NewTextHandler(io.Discard, nil)))
			const many = 10 * tracker.Queue
			for range many { // while the first is not answered
				log.Error("again", "error", "the disk is full")
			}
			testkit.Eventually(t, "asked", func() bool { asked, _ := in.Counts(); return asked > 0 })
			if row.answers {
				release()
			}
			errs.Close()
			if row.answers {
				in.Await(t, 1)
			}
			if asked, kept := in.Counts(); asked > many/2 || (kept > 0) != row.answers {
				t.Errorf("asked %d times and answered %d of %d", asked, kept, many)
			}
		})
	}
}

// Of a storm of errors, the tracker gets only a burst.
func TestErrorStorm(t *testing.T) {
	in := testkit.NewIngest(t, nil)
	errs := report(t, in)
	errs.SetPace(rate.NewLimiter(0, tracker.Burst)) // so that no more is allowed while this runs
	log := slog.New(errs.Handler(slog.NewTextHandler(io.Discard, nil)))
	for range 1000 {
		log.WithGroup("g").Error("again", "error", "in a group")
	}
	in.Await(t, tracker.Burst)
	errs.Close()
	events, texts := in.Events(t)
	if len(events) != tracker.Burst || strings.Contains(texts[0], "in a group") {
		t.Errorf("%d events", len(events))
	}
}

// The stack of an event ends at the call that logged the error, and not in the
// packages that carry it to the tracker.
func TestFrames(t *testing.T) {
	in := testkit.NewIngest(t, nil)
	errs := report(t, in)
	slog.New(errs.Handler(slog.NewTextHandler(io.Discard, nil))).Error("the disk is full")
	in.Await(t, 1)
	errs.Close()
	events, _ := in.Events(t)
	if len(events) != 1 {
		t.Fatalf("%d events, want 1", len(events))
	}
	frames := events[0]["exception"].([]any)[0].(map[string]any)["stacktrace"].(map[string]any)["frames"].([]any)
	if last := frames[len(frames)-1].(map[string]any); last["function"] != "TestFrames" {
		t.Errorf("the innermost frame is %v", last)
	}
}

func TestClean(t *testing.T) {
	errs := protecting(secret, "two words of a secret")
	for _, row := range []struct{ text, want string }{
		{"the disk is full", "the disk is full"},
		{"write /var/lib/relay/history/log: no space left on device", "write log: no space left on device"},
		{"dial tcp 10.0.0.1:80->[fe80::1%eth0]:9: refused", "dial tcp [addr]:80->[[addr]]:9: refused"},
		{"at ::1 or 1:2:3:4:5:6:7:8", "at [addr] or [addr]"},
		{"relay.go:12:5 at 18:04:05", "relay.go:12:5 at 18:04:05"},
		{"block 10.0.0.0/8 or fe80::/10", "block [addr] or [addr]"},

		// Paths, whose directories may have spaces, colons and any separator.
		{"open /srv/Jane Doe/my relay/log file: no space", "open log file: no space"},
		{"open /srv/a:b c/blocks.json: denied; open /d e/f: gone", "open blocks.json: denied; open f: gone"},
		{"rename /a b/c.tmp /d e/c.key: busy", "rename c.key: busy"},
		{"open secrets/jwt-secret: denied", "open jwt-secret: denied"},
		{"open Jane Doe/jwt-secret: denied", "open jwt-secret: denied"},
		{"unlinkat ../Jane Doe/x: denied", "unlinkat x: denied"},
		{"in ~/notes/x or ./y", "in x or y"},
		{`open C:\Users\Jane Doe\relay\log.txt: denied`, "open log.txt: denied"},
		{`CreateFile D:/relay data/log: denied`, "CreateFile log: denied"},
		{`at \\nas01\share one\log: denied`, "at log: denied"},
		{`at data\history\log`, "at log"},
		{"HISTORY_DIR=/var/my data/history is not ours", "HISTORY_DIR=history is not ours"},

		// Host names, also without a dot and of mail addresses.
		{"lookup relay.museum.example on 10.0.0.1:53: no such host", "lookup [host] on [addr]:53: no such host"},
		{"dial tcp: lookup nas01: no such host", "dial tcp: lookup [host]: no such host"},
		{"dial tcp nas01:5432: refused", "dial tcp [host]:5432: refused"},
		{"valid for art.example, www.art.example, not bücher.example.", "valid for [host], [host], not [host]"},
		{"mail jane.doe@art.example", "mail [host]"},
		{"Get https://art.example:8443/a?b=c: refused", "Get [url]: refused"},
		{"open /etc/ssl/art.example.pem: denied", "open [host]: denied"},
		{"HOST NAS.LOCAL", "HOST [host]"},
		{"*fs.PathError in journal.Open, 1.5 of v1.2.3", "*fs.PathError in journal.Open, 1.5 of v1.2.3"},
		{`parsing "what \"he\" said": syntax`, `parsing [text]: syntax`},
		{"an open \"quotation", "an open [text]"},
		{"a`b`c", "a[text]c"},
		{"is two words of a secret, or", "is [secret], or"},
		{"key " + testkit.DSNKey, "key [secret]"},
		{"short eyJh", "short [token]"},
	} {
		if got := errs.Clean(row.text); got != row.want {
			t.Errorf("%q: got %q, want %q", row.text, got, row.want)
		}
	}
	if got := errs.Clean(strings.Repeat("ä ", 5000)); len(got) > tracker.MaxReported+3 || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes", len(got))
	}
}

// An error knows its path and its host, whatever characters they have.
func TestErrorsThatName(t *testing.T) {
	const odd = "Jane: Doe" // a text alone does not show that this is one name
	cause := errors.New("it failed")
	for _, row := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "fsync", Path: "/srv/" + odd + "/log", Err: cause}, "fsync log: it failed"},
		{&fs.PathError{Op: "fsync", Path: odd + "/log", Err: cause}, "fsync log: it failed"},
		{fmt.Errorf("saving: %w", &os.LinkError{Op: "rename", Old: odd + "/a", New: "b/" + odd + "/c", Err: cause}), "saving: rename a c: it failed"},
		{errors.Join(cause, &fs.PathError{Op: "open", Path: `C:\` + odd + `\log`, Err: cause}), "it failed\nopen log: it failed"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "nas01", Server: "dns7:53"}}, "dial tcp: lookup [host] on [addr]: no such host"},
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}}, Host: "nas01"}, "x509: certificate is valid for [host], not [host]"},
	} {
		in := testkit.NewIngest(t, nil)
		errs := report(t, in)
		slog.New(errs.Handler(slog.NewTextHandler(io.Discard, nil))).Error("failed", "error", row.err)
		in.Await(t, 1)
		errs.Close()
		events, _ := in.Events(t)
		if len(events) != 1 {
			t.Fatalf("%d events, want 1", len(events))
		}
		if got := events[0]["exception"].([]any)[0].(map[string]any)["value"]; got != row.want {
			t.Errorf("%v: got %q, want %q", row.err, got, row.want)
		}
	}
}

// FuzzClean puts any text around texts that must not leave the machine.
func FuzzClean(f *testing.F) {
	f.Add("token ", " refused")
	f.Add(`"`, `\`)
	f.Add("/a/", "/b")
	f.Add("0:", ":1")
	errs := protecting(secret)
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, unsaid := range []string{secret, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "rgrt_c2ln-X1", "192.0.2.77", "2001:db8::77"} {
			if strings.Contains(before+after, unsaid[:4]) {
				continue
			}
			if got := errs.Clean(before + unsaid + after); strings.Contains(got, unsaid) {
				t.Errorf("%q is still in %q", unsaid, got)
			}
		}
		for _, path := range []string{"/srv/Jane Doe/log", `C:\Users\Jane Doe\log`, `\\nas01\Jane Doe\log`, "open Jane Doe/log", "Jane/log"} {
			got := errs.Clean(before + " " + path + after)
			if !strings.Contains(before+after, "Jane") && strings.Contains(got, "Jane") {
				t.Errorf("the directory of %q is still in %q", path, got)
			}
		}
		if got := errs.Clean(before + after); strings.ContainsAny(got, `/\`) {
			t.Errorf("a path is in %q", got)
		}
	})
}
