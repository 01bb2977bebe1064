// Command chat is the service of examples/services/chat with golang-jwt,
// keyfunc and gorilla/websocket alone. It answers its clients in the same way.
//
// What these libraries leave to the service, and it does not do: a token with
// an unknown key may hold its request for a minute, because keyfunc waits for
// its own limit; a client can write a token's header twice, or name a claim
// twice; a failed or ended connection counts against its address until the
// minute is over; and a close can wait for a client that stalls.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/httprate"
	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

const (
	writeWait = 10 * time.Second
	pongWait  = 40 * time.Second
	pingEvery = 30 * time.Second
)

type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

func (c *claims) can(permission, room string) bool {
	scope := strings.Fields(c.Scope)
	return slices.Contains(scope, permission) || slices.Contains(scope, permission+":"+room)
}

type member struct {
	ws   *websocket.Conn
	send chan []byte
}

type room struct {
	mu      sync.Mutex
	members map[*member]bool
	recent  [][]byte
}

func (r *room) enter(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[m] = true
	for _, text := range r.recent {
		m.send <- text
	}
}

// publish closes the connection of a member that reads too slowly.
func (r *room) publish(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent = append(r.recent, text)
	r.recent = r.recent[max(0, len(r.recent)-50):]
	for m := range r.members {
		select {
		case m.send <- text:
		default:
			m.ws.Close()
		}
	}
}

type chat struct {
	keys     keyfunc.Keyfunc
	parser   *jwt.Parser
	failed   atomic.Int64 // when the provider did not answer
	upgrader websocket.Upgrader
	mu       sync.Mutex
	rooms    map[string]*room
}

func (c *chat) room(name string) *room {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rooms[name] == nil {
		c.rooms[name] = &room{members: map[*member]bool{}}
	}
	return c.rooms[name]
}

// leave forgets a room when its last member has left, or strangers could fill
// the memory with rooms.
func (c *chat) leave(name string, r *room, m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.members, m)
	if len(r.members) == 0 {
		delete(c.rooms, name)
	}
}

func token(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	for _, offered := range websocket.Subprotocols(r) {
		if token, ok := strings.CutPrefix(offered, "bearer."); ok {
			return token
		}
	}
	return ""
}

func (c *chat) authenticate(w http.ResponseWriter, r *http.Request) (*claims, error) {
	var user claims
	_, err := c.parser.ParseWithClaims(token(r), &user, c.keys.KeyfuncCtx(r.Context()))
	switch {
	case err == nil && user.Subject != "":
		return &user, nil
	case errors.Is(err, jwkset.ErrKeyNotFound) && time.Since(time.Unix(0, c.failed.Load())) < time.Minute:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
	default:
		slog.Warn("refused", "addr", r.RemoteAddr, "error", err)
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	}
	return nil, cmp.Or(err, errors.New("no subject"))
}

func (c *chat) join(w http.ResponseWriter, r *http.Request) {
	user, err := c.authenticate(w, r)
	if err != nil {
		return
	}
	name := chi.URLParam(r, "room")
	if !user.can("read", name) {
		http.Error(w, "you may not read this room", http.StatusForbidden)
		return
	}
	ws, err := c.upgrader.Upgrade(w, r, w.Header())
	if err != nil {
		return
	}
	defer ws.Close()
	m := &member{ws, make(chan []byte, 256)}
	room := c.room(name)
	room.enter(m)
	defer c.leave(name, room, m)
	ctx, cancel := context.WithDeadline(r.Context(), user.ExpiresAt.Time)
	defer cancel()
	go m.write(ctx)
	ws.SetReadLimit(64 << 10)
	ws.SetReadDeadline(time.Now().Add(pongWait))
	ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		kind, text, err := ws.ReadMessage()
		if err != nil {
			return
		}
		if kind != websocket.TextMessage || !user.can("publish", name) {
			reason := websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "you may not write in this room")
			ws.WriteControl(websocket.CloseMessage, reason, time.Now().Add(time.Second))
			return
		}
		message, _ := json.Marshal(map[string]string{"from": user.Subject, "text": string(text)})
		room.publish(message)
	}
}

func (m *member) write(ctx context.Context) {
	defer m.ws.Close()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		kind, text := websocket.TextMessage, []byte(nil)
		select {
		case text = <-m.send:
		case <-ping.C:
			kind = websocket.PingMessage
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				reason := websocket.FormatCloseMessage(4401, "")
				m.ws.WriteControl(websocket.CloseMessage, reason, time.Now().Add(time.Second))
			}
			return
		}
		m.ws.SetWriteDeadline(time.Now().Add(writeWait))
		if m.ws.WriteMessage(kind, text) != nil {
			return
		}
	}
}

func discover(ctx context.Context, issuer string) (jwks string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, 512<<10)).Decode(&doc); err != nil || doc.Issuer != issuer {
		return "", fmt.Errorf("no provider at %s: %w", issuer, err)
	}
	return doc.JWKS, nil
}

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

func byAddress(r *http.Request) (string, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return httprate.CanonicalizeIP(host), err
}

func site(ctx context.Context, issuer, audience string) (http.Handler, error) {
	jwks, err := discover(ctx, issuer)
	if err != nil {
		return nil, err
	}
	c := &chat{
		upgrader: websocket.Upgrader{Subprotocols: []string{"chat"}},
		parser: jwt.NewParser(jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(),
			jwt.WithValidMethods([]string{"RS256", "ES256", "ES384", "EdDSA"})),
		rooms: map[string]*room{},
	}
	c.keys, err = keyfunc.NewDefaultOverrideCtx(ctx, []string{jwks}, keyfunc.Override{
		RefreshInterval:   15 * time.Minute,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(time.Second), 1),
		RefreshErrorHandlerFunc: func(url string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				c.failed.Store(time.Now().UnixNano())
				slog.Warn("keys not fetched", "url", url, "error", err)
			}
		},
	})
	router := chi.NewRouter()
	router.Use(secure)
	router.With(httprate.LimitBy(60, time.Minute, byAddress)).Get("/rooms/{room:[a-z0-9][a-z0-9-]*}", c.join)
	return router, err
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
