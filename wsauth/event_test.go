package wsauth_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Other programs read these lines, such as fail2ban, alerts and reports, so
// their format must not change.
func TestAuditLogFormat(t *testing.T) {
	peer := wsauth.Peer{Addr: netip.MustParseAddr("192.0.2.1"), ID: "not written"}
	for _, row := range []struct {
		event      wsauth.Event
		text, json string
	}{
		{
			wsauth.Event{
				Kind: wsauth.EventAuthenticated, Peer: peer, SessionID: "S-1", Subject: "pi-1", TokenID: "t 1", KeyID: "k1",
				ExpiresAt: time.Unix(1_800_000_000, 0).UTC(),
			},
			`level=INFO msg=auth outcome=authenticated addr=192.0.2.1 subject=pi-1 token_id="t 1" key_id=k1 expires_at=2027-01-15T08:00:00.000Z session_id=S-1`,
			`{"level":"INFO","msg":"auth","outcome":"authenticated","addr":"192.0.2.1","subject":"pi-1","token_id":"t 1","key_id":"k1","expires_at":"2027-01-15T08:00:00Z","session_id":"S-1"}`,
		},
		{
			wsauth.Event{Kind: wsauth.EventRefused, Reason: wsauth.ReasonSignature, Peer: peer, SessionID: "S-1"},
			`level=WARN msg=auth outcome=refused addr=192.0.2.1 reason=signature session_id=S-1`,
			`{"level":"WARN","msg":"auth","outcome":"refused","addr":"192.0.2.1","reason":"signature","session_id":"S-1"}`,
		},
		{
			wsauth.Event{Kind: wsauth.EventExpired, Reason: wsauth.ReasonExpired, Peer: peer, SessionID: "S-1", Subject: "pi-1", TokenID: "t1", KeyID: "k1"},
			`level=WARN msg=auth outcome=expired addr=192.0.2.1 reason=expired subject=pi-1 token_id=t1 key_id=k1 session_id=S-1`,
			`{"level":"WARN","msg":"auth","outcome":"expired","addr":"192.0.2.1","reason":"expired","subject":"pi-1","token_id":"t1","key_id":"k1","session_id":"S-1"}`,
		},
		{
			wsauth.Event{Kind: wsauth.EventOriginRefused, Reason: wsauth.ReasonOrigin, Peer: peer, Detail: "origin \"null\"\noutcome=authenticated"},
			`level=WARN msg=auth outcome=origin_refused addr=192.0.2.1 reason=origin detail="origin \"null\"\noutcome=authenticated"`,
			`{"level":"WARN","msg":"auth","outcome":"origin_refused","addr":"192.0.2.1","reason":"origin","detail":"origin \"null\"\noutcome=authenticated"}`,
		},
	} {
		for want, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			row.text: func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, timeless) },
			row.json: func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, timeless) },
		} {
			var out bytes.Buffer
			wsauth.AuditLog(slog.New(handler(&out)))(row.event)
			if got := strings.TrimSuffix(out.String(), "\n"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
	wsauth.AuditLog(nil)(wsauth.Event{})
}

var timeless = &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

// Events that are no problem must not be warnings, or the operator learns to
// ignore warnings.
func TestAuditLogLevels(t *testing.T) {
	levels := map[wsauth.EventKind]slog.Level{
		wsauth.EventAuthenticated: slog.LevelInfo,
		wsauth.EventRefreshed:     slog.LevelInfo,
		wsauth.EventRefused:       slog.LevelWarn,
		wsauth.EventDenied:        slog.LevelWarn,
		wsauth.EventUnavailable:   slog.LevelError,
		wsauth.EventExpired:       slog.LevelWarn,
		wsauth.EventRevoked:       slog.LevelWarn,
		wsauth.EventReplaced:      slog.LevelWarn,
		wsauth.EventEnded:         slog.LevelInfo,
		wsauth.EventOriginRefused: slog.LevelWarn,
		wsauth.EventPairIssued:    slog.LevelInfo,
		wsauth.EventPairRotated:   slog.LevelInfo,
		wsauth.EventPairRepeated:  slog.LevelInfo,
		wsauth.EventPairRefused:   slog.LevelWarn,
		wsauth.EventFamilyRevoked: slog.LevelWarn,
	}
	for _, kind := range append(wsauth.EventKinds(), "unknown") {
		level, ok := levels[kind]
		if !ok {
			if kind != "unknown" {
				t.Errorf("no level is expected of %s", kind)
			}
			level = slog.LevelWarn
		}
		if kind.Level() != level {
			t.Errorf("%s: %v, want %v", kind, kind.Level(), level)
		}
		var out bytes.Buffer
		wsauth.AuditLog(slog.New(slog.NewTextHandler(&out, timeless)))(wsauth.Event{Kind: kind})
		if want := "level=" + level.String() + " msg=auth outcome=" + string(kind) + " "; !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: %s", kind, out.String())
		}
	}
}

// All kinds and reasons are declared in event.go, and each kind is in the list
// once.
func TestSetsAreClosed(t *testing.T) {
	if kinds := constants(t, "event.go", "EventKind"); !slices.Equal(kinds, asText(wsauth.EventKinds())) {
		t.Errorf("declared:\n%q\nlisted:\n%q", kinds, wsauth.EventKinds())
	}
	for _, typ := range []string{"EventKind", "Reason"} {
		declared := constants(t, "event.go", typ)
		if len(declared) < 14 {
			t.Errorf("only %d constants of type %s were found", len(declared), typ)
		}
		slices.Sort(declared)
		if compact := slices.Compact(slices.Clone(declared)); len(compact) != len(declared) {
			t.Errorf("a %s twice: %q", typ, declared)
		}
	}
	var files []string
	for _, pattern := range []string{"*.go", "*/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		if file == "event.go" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, typ := range []string{"EventKind", "Reason"} {
			if elsewhere := constants(t, file, typ); elsewhere != nil {
				t.Errorf("%s declares, too: %q", file, elsewhere)
			}
		}
	}
	wsauth.EventKinds()[0] = "changed"
	if wsauth.EventKinds()[0] == "changed" {
		t.Error("the list can be changed for others")
	}
}

// A genuine token that is refused is no guess, and everything else is.
func TestGuesses(t *testing.T) {
	genuine := map[wsauth.Reason]string{
		wsauth.ReasonClaims:       "the signature is checked before",
		wsauth.ReasonExpired:      "a device that was away for long",
		wsauth.ReasonNotYetValid:  "a device whose token is for later",
		wsauth.ReasonIssuer:       "the signature is checked before",
		wsauth.ReasonAudience:     "the signature is checked before",
		wsauth.ReasonSubject:      "a device that was taken off the list",
		wsauth.ReasonRole:         "a role that was taken off the list",
		wsauth.ReasonOtherSubject: "two devices behind one proxy",
		wsauth.ReasonOlder:        "a device that shows its tokens in another order",
		wsauth.ReasonSessions:     "a device that reconnects before its old connection is noticed to be gone",
		wsauth.ReasonRevoked:      "a device that has not heard of its revocation",
		wsauth.ReasonBarred:       "its token was not read",
		wsauth.ReasonReused:       "only its tokens contain the handle of a family",
		wsauth.ReasonUnavailable:  "nothing was decided",
		wsauth.ReasonTimeout:      "nothing was sent",
		wsauth.ReasonNoToken:      "a request of an image on a foreign page, or before the login",
	}
	guesses := map[wsauth.Reason]bool{
		wsauth.ReasonMalformed: true, wsauth.ReasonAlgorithm: true, wsauth.ReasonHeader: true,
		wsauth.ReasonKey: true, wsauth.ReasonSignature: true, wsauth.ReasonVerifier: true, wsauth.ReasonUnknown: true,
		wsauth.ReasonNotAuthenticated: true, wsauth.ReasonPermission: true, wsauth.ReasonReplaced: true, wsauth.ReasonOperator: true,
		wsauth.ReasonOrigin: true, "a reason of its own": true, "": true,
	}
	for _, text := range append(constants(t, "event.go", "Reason"), "a reason of its own", "") {
		r := wsauth.Reason(text)
		if why, ok := genuine[r]; ok == guesses[r] {
			t.Errorf("it is not said whether %q is a guess", r)
		} else if r.IsGuess() == ok {
			t.Errorf("%q: %t (%s)", r, r.IsGuess(), why)
		}
	}
}

func asText(kinds []wsauth.EventKind) (texts []string) {
	for _, k := range kinds {
		texts = append(texts, string(k))
	}
	return texts
}

// constants returns the values of the constants of a type of this package, in
// the order of the file.
func constants(t *testing.T, file, typ string) (values []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	nameOf := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		}
		return ""
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, v := range spec.Values {
			name := nameOf(spec.Type)
			if call, ok := v.(*ast.CallExpr); ok && len(call.Args) == 1 { // EventKind("…")
				name, v = nameOf(call.Fun), call.Args[0]
			}
			if text, ok := v.(*ast.BasicLit); ok && name == typ {
				value, err := strconv.Unquote(text.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
		}
		return true
	})
	return values
}
