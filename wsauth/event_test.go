package wsauth_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// The lines are a promise to whoever reads them by program: fail2ban, alerts, reports.
func TestAuditLogFormat(t *testing.T) {
	peer := wsauth.Peer{Addr: netip.MustParseAddr("192.0.2.1"), ID: "not written"}
	for _, row := range []struct {
		event      wsauth.Event
		text, json string
	}{
		{
			wsauth.Event{
				Kind: wsauth.EventAuthenticated, Peer: peer, SessionID: "S-1", Device: "pi-1", TokenID: "t 1", KeyID: "k1",
				ExpiresAt: time.Unix(1_800_000_000, 0).UTC(),
			},
			`level=INFO msg=auth outcome=authenticated addr=192.0.2.1 device=pi-1 token_id="t 1" key_id=k1 expires_at=2027-01-15T08:00:00.000Z session_id=S-1`,
			`{"level":"INFO","msg":"auth","outcome":"authenticated","addr":"192.0.2.1","device":"pi-1","token_id":"t 1","key_id":"k1","expires_at":"2027-01-15T08:00:00Z","session_id":"S-1"}`,
		},
		{
			wsauth.Event{Kind: wsauth.EventRefused, Reason: wsauth.ReasonSignature, Peer: peer, SessionID: "S-1"},
			`level=WARN msg=auth outcome=refused addr=192.0.2.1 reason=signature session_id=S-1`,
			`{"level":"WARN","msg":"auth","outcome":"refused","addr":"192.0.2.1","reason":"signature","session_id":"S-1"}`,
		},
		{
			wsauth.Event{Kind: wsauth.EventExpired, Reason: wsauth.ReasonExpired, Peer: peer, SessionID: "S-1", Device: "pi-1", TokenID: "t1", KeyID: "k1"},
			`level=WARN msg=auth outcome=expired addr=192.0.2.1 reason=expired device=pi-1 token_id=t1 key_id=k1 session_id=S-1`,
			`{"level":"WARN","msg":"auth","outcome":"expired","addr":"192.0.2.1","reason":"expired","device":"pi-1","token_id":"t1","key_id":"k1","session_id":"S-1"}`,
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

func TestAuditLogLevels(t *testing.T) {
	for kind, level := range map[wsauth.EventKind]string{
		wsauth.EventAuthenticated: "INFO",
		wsauth.EventRefreshed:     "INFO",
		wsauth.EventEnded:         "INFO",
		wsauth.EventRefused:       "WARN",
		wsauth.EventDenied:        "WARN",
		wsauth.EventExpired:       "WARN",
		wsauth.EventRevoked:       "WARN",
		wsauth.EventReplaced:      "WARN",
		wsauth.EventOriginRefused: "WARN",
	} {
		var out bytes.Buffer
		wsauth.AuditLog(slog.New(slog.NewTextHandler(&out, timeless)))(wsauth.Event{Kind: kind})
		if want := "level=" + level + " msg=auth outcome=" + string(kind) + " "; !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: %s", kind, out.String())
		}
	}
}
