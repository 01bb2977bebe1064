// Command chat is a chat in rooms, for the users of an OpenID Connect provider.
// It uses chi and gorilla/websocket.
//
// A user joins a room with a WebSocket at /rooms/NAME. The access token comes
// in the Authorization header, or from a page as a subprotocol:
//
//	new WebSocket("wss://chat.example/rooms/lobby", ["chat", "bearer." + token])
//
// The scope of the token says what the user may do: "read" and "publish" in all
// rooms, or "read:lobby" and "publish:lobby" in one. The client sends texts. It
// receives the last 50 messages of the room and every new one, as
// {"from":"alice","text":"Hello"}. The connection ends when the token expires,
// with the close code 4401.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/websocket"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

type chat struct {
	gate     *wsauth.Gate
	adapter  *wsadapter.Adapter
	upgrader websocket.Upgrader
	rooms    *history.Set
}

func (c *chat) join(w http.ResponseWriter, r *http.Request) {
	user, err := c.gate.Authenticate(w, r, wsauth.FromBearer, wsauth.FromSubprotocol("bearer."))
	if err != nil {
		return // Authenticate has answered with 401, or 503 if the provider is down
	}
	name := chi.URLParam(r, "room")
	if !user.Can(wsauth.Read, name) {
		http.Error(w, "you may not read this room", http.StatusForbidden)
		return
	}
	room, leave, err := c.rooms.Create(r.Context(), name)
	if err != nil {
		http.Error(w, "there are too many rooms", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	rw := c.adapter.Wrap(w)
	ws, err := c.upgrader.Upgrade(rw, r, w.Header())
	if err != nil {
		return // Upgrade has answered
	}
	session, err := c.gate.AttachIdentity(r.Context(), wsadapter.Gorilla(ws, rw), c.gate.Peer(r), user)
	if err != nil {
		return // AttachIdentity has closed the connection
	}
	defer session.Close(websocket.ClosePolicyViolation, "you may not write in this room")
	go deliver(r.Context(), session, name, room.Reader(history.Last(50)))
	for {
		text, err := session.Next(r.Context())
		if err != nil || session.Authorize(wsauth.Publish, name) != nil {
			return
		}
		message, _ := json.Marshal(map[string]string{"from": user.Subject, "text": string(text)})
		if _, err := room.Append(r.Context(), message); err != nil {
			return
		}
	}
}

// deliver sends the messages of a room to one member, until join returns.
func deliver(ctx context.Context, session *wsauth.Session, room string, messages *history.Reader) {
	for {
		batch, err := messages.Next(ctx)
		if err != nil {
			return
		}
		for _, m := range batch.Entries {
			if session.Authorize(wsauth.Read, room) != nil || session.Reply(ctx, m.Data) != nil {
				return
			}
		}
	}
}

func site(ctx context.Context, issuer, audience string) (http.Handler, error) {
	tokens, err := jwtauth.New(jwtauth.Config{
		Providers: []jwtauth.Provider{{Issuer: issuer}}, MinRefreshInterval: time.Second, Audience: audience, AnySubject: true,
	})
	if err != nil {
		return nil, err
	}
	go tokens.Run(ctx)
	gate, badGate := wsauth.New(wsauth.Config{
		Verifier: tokens, Dialect: wsauth.NoDialect{}, OnExpiry: wsauth.OnExpiryClose, Audit: wsauth.AuditLog(slog.Default()),
	})
	adapter, badAdapter := wsadapter.New(wsadapter.Config{})
	rooms, badRooms := history.NewSet(history.SetConfig{})
	limit, badLimit := ratelimit.New(ratelimit.Config{})
	secure, badPolicy := headers.New(headers.Strict())
	upgrader := websocket.Upgrader{
		Subprotocols: []string{"chat"},
		CheckOrigin:  func(r *http.Request) bool { return wsauth.Origins{}.Check(r) == nil }, // the same origin only
	}
	router := chi.NewRouter()
	router.Use(secure.Handler)
	router.With(limit.Handler).Get("/rooms/{room:[a-z0-9][a-z0-9-]*}", (&chat{gate, adapter, upgrader, rooms}).join)
	return router, errors.Join(badGate, badAdapter, badRooms, badLimit, badPolicy)
}

func main() {
	h, err := site(context.Background(), os.Getenv("OIDC_ISSUER"), os.Getenv("OIDC_AUDIENCE"))
	if err == nil {
		server := http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: h, ReadHeaderTimeout: 10 * time.Second}
		err = server.ListenAndServe()
	}
	slog.Error("stopped", "error", err)
	os.Exit(1)
}
