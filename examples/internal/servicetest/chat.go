package servicetest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
)

// StartChat returns the handler of a chat. It may use ctx until the test ends.
type StartChat = func(ctx context.Context, issuer, audience string) (http.Handler, error)

// Chat tests a chat with the users of a provider.
func Chat(t *testing.T, start StartChat) {
	t.Run("handshake", func(t *testing.T) { chatHandshake(t, newChat(t, start)) })
	t.Run("messages", func(t *testing.T) { chatMessages(t, newChat(t, start)) })
	t.Run("expiry", func(t *testing.T) { chatExpiry(t, newChat(t, start)) })
	t.Run("rotation", func(t *testing.T) { chatRotation(t, newChat(t, start)) })
	t.Run("provider down", func(t *testing.T) { chatProviderDown(t, newChat(t, start)) })
}

type chat struct {
	*visitor
	*Provider
}

func newChat(t *testing.T, start StartChat, prepare ...func(*Provider)) *chat {
	t.Helper()
	leaveNone(t)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	p := NewProvider(t)
	for _, f := range prepare {
		f(p)
	}
	h, err := start(t.Context(), p.URL, Audience)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &chat{&visitor{t, server.URL}, p}
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func chatHandshake(t *testing.T, c *chat) {
	good := c.Token(t, "alice", "read publish", nil)
	own, foreign := http.Header{"Origin": {c.url}}, http.Header{"Origin": {"https://evil.example"}}
	for _, row := range []struct {
		name         string
		header       http.Header
		subprotocols []string
		path         string
		status       int
	}{
		{"a program", bearer(good), nil, "/rooms/lobby", 101},
		{"a page", own, []string{"chat", "bearer." + good}, "/rooms/lobby", 101},
		{"a foreign page", foreign, []string{"chat", "bearer." + good}, "/rooms/lobby", 403},
		{"no token", nil, nil, "/rooms/lobby", 401},
		{"a changed token", bearer(tamper(good)), nil, "/rooms/lobby", 401},
		{"an expired token", bearer(c.Token(t, "alice", "read", map[string]any{"exp": time.Now().Unix() - 1})), nil, "/rooms/lobby", 401},
		{"a token without exp", bearer(c.Token(t, "alice", "read", map[string]any{"exp": nil})), nil, "/rooms/lobby", 401},
		{"a token for another service", bearer(c.Token(t, "alice", "read", map[string]any{"aud": "mail"})), nil, "/rooms/lobby", 401},
		{"a token of another issuer", bearer(c.Token(t, "alice", "read", map[string]any{"iss": "https://evil.example"})), nil, "/rooms/lobby", 401},
		{"a token without subject", bearer(c.Token(t, "", "read", nil)), nil, "/rooms/lobby", 401},
		{"no permission", bearer(c.Token(t, "alice", "", nil)), nil, "/rooms/lobby", 403},
		{"permission on another room", bearer(c.Token(t, "alice", "read:attic", nil)), nil, "/rooms/lobby", 403},
		{"permission on this room", bearer(c.Token(t, "alice", "read:lobby", nil)), nil, "/rooms/lobby", 101},
		{"a malformed room", bearer(good), nil, "/rooms/..%2f", 404},
	} {
		ws, res := c.dial(row.path, "", row.header, row.subprotocols...)
		if res.StatusCode != row.status {
			t.Errorf("%s: %s, want %d", row.name, res.Status, row.status)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: the answer lacks the headers of the policy", row.name)
		}
		if row.status == 401 && res.Header.Get("Www-Authenticate") == "" {
			t.Errorf("%s: the answer does not say how to authenticate", row.name)
		}
		if ws != nil {
			if got := ws.Subprotocol(); row.subprotocols != nil && got != "chat" {
				t.Errorf("%s: subprotocol %q", row.name, got)
			}
			ws.CloseNow()
		}
	}
}

func chatMessages(t *testing.T, c *chat) {
	join := func(subject, scope, room string) func(write, want string) {
		ws, res := c.dial("/rooms/"+room, "", bearer(c.Token(t, subject, scope, nil)))
		if ws == nil {
			t.Fatalf("%s may not enter: %s", subject, res.Status)
		}
		return func(text, want string) {
			t.Helper()
			if text != "" {
				write(t, ws, text)
			}
			if want != "" {
				expect(t, ws, want)
			} else {
				expectClose(t, ws, 1008)
			}
		}
	}
	const hello, answer = `{"from":"alice","text":"Hello \"Bob\""}`, `{"from":"bob","text":"Hi"}`
	alice, bob := join("alice", "read publish", "lobby"), join("bob", "read:lobby publish:lobby", "lobby")
	elsewhere := join("carol", "read publish", "attic")
	alice(`Hello "Bob"`, hello)
	bob("", hello)
	bob("Hi", answer)
	alice("", answer)
	elsewhere("Echo", `{"from":"carol","text":"Echo"}`) // and nothing of the lobby before

	late := join("dave", "read:lobby publish:attic", "lobby")
	late("", hello)
	late("", answer)
	late("let me in", "")
}

// The token lasts longer each time, because a slow machine may use it too late.
func chatExpiry(t *testing.T, c *chat) {
	for seconds := int64(1); ; seconds *= 2 {
		token := c.Token(t, "alice", "read publish", map[string]any{"exp": time.Now().Unix() + seconds})
		ws, res := c.dial("/rooms/lobby", "", bearer(token))
		if ws != nil {
			expectClose(t, ws, 4401)
			return
		}
		if res.StatusCode != 401 || seconds > 60 {
			t.Fatal(res.Status)
		}
	}
}

func chatRotation(t *testing.T, c *chat) {
	c.await("a token with a known key", bearer(c.Token(t, "alice", "read", nil)), 101)
	c.Rotate(t)
	c.await("a token with a new key", bearer(c.Token(t, "alice", "read", nil)), 401, 101)
}

func chatProviderDown(t *testing.T, c *chat) {
	known := bearer(c.Token(t, "alice", "read", nil))
	c.await("a token with a known key", known, 101)
	c.Down(true)
	c.await("a token with a known key", known, 101)
	c.Rotate(t)
	c.await("a token with a new key", bearer(c.Token(t, "alice", "read", nil)), 401, 503)
	c.await("no token", nil, 401)
}

// ChatWithoutProvider tests that a chat starts while its provider is down, and
// lets users in when the provider is back.
func ChatWithoutProvider(t *testing.T, start StartChat) {
	c := newChat(t, start, func(p *Provider) { p.Down(true) })
	header := bearer(c.Token(t, "alice", "read", nil))
	c.await("a token before the provider is up", header, 503)
	c.Down(false)
	c.await("a token after the provider is up", header, 503, 101)
}

// await dials until the status is the last one, which follows any number of the
// others. It dials seldom enough for the limit of the service.
func (c *chat) await(what string, header http.Header, statuses ...int) {
	c.t.Helper()
	next := time.Tick(100 * time.Millisecond)
	testkit.Eventually(c.t, what, func() bool {
		<-next
		ws, res := c.dial("/rooms/lobby", "", header)
		if ws != nil {
			ws.CloseNow()
		}
		if !slices.Contains(statuses, res.StatusCode) {
			c.t.Fatalf("%s: %s, want %v", what, res.Status, statuses)
		}
		return res.StatusCode == statuses[len(statuses)-1]
	})
}
