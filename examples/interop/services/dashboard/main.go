// Command dashboard is the service of examples/services/dashboard with
// gin-contrib/sessions and coder/websocket alone. It answers its clients in the
// same way.
//
// What these libraries leave to the service, and it does not do: wrong
// passwords are limited only by the limit of requests, which counts failed and
// ended connections until the minute is over; a WebSocket that reads too slowly
// is closed, because values wait for it in a queue; and a close can wait for a
// client that stalls.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/httprate"
	"golang.org/x/crypto/bcrypt"
)

const (
	lifetime  = 8 * time.Hour // of a login
	writeWait = 10 * time.Second
	pingEvery = 30 * time.Second
	// decoy is the hash of a password that was forgotten. It is compared if a
	// name is unknown, so that the answer takes as long as for a known one.
	decoy = "$2a$10$vsKpNTMaXHeQTY0ER0U9Y.mgUJpLwxadLEbc3uSSQPbkHF6uAdyEu"
)

type user struct{ Password, Permissions string }

func (u user) can(permission, topic string) bool {
	all := strings.Fields(u.Permissions)
	return slices.Contains(all, permission) || slices.Contains(all, permission+":"+topic)
}

// socket is one WebSocket of a user.
type socket struct {
	user string
	send chan []byte
	end  context.CancelCauseFunc
}

var (
	errLoggedOut = errors.New("logged out")
	errSlow      = errors.New("reads too slowly")
)

type dashboard struct {
	users map[string]user

	mu      sync.Mutex
	logouts map[string]time.Time // by user: logins from before are invalid
	sockets map[*socket]bool
	latest  map[string][]byte // by topic
}

func (d *dashboard) login(c *gin.Context) {
	name := c.PostForm("name")
	hash := cmp.Or(d.users[name].Password, decoy)
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(c.PostForm("password"))) != nil {
		slog.Warn("refused", "addr", c.Request.RemoteAddr, "reason", "password")
		c.String(http.StatusUnauthorized, "wrong name or password")
		return
	}
	s := sessions.Default(c)
	s.Set("user", name)
	s.Set("since", time.Now().UnixNano())
	if s.Save() != nil {
		c.Status(http.StatusInternalServerError)
		return
	}
	c.Status(http.StatusNoContent)
}

// current returns the user of a request, or answers it.
func (d *dashboard) current(c *gin.Context) (name string, since time.Time, ok bool) {
	s := sessions.Default(c)
	name, _ = s.Get("user").(string)
	at, _ := s.Get("since").(int64)
	since = time.Unix(0, at)
	_, known := d.users[name]
	d.mu.Lock()
	defer d.mu.Unlock()
	if !known || time.Since(since) > lifetime || !since.After(d.logouts[name]) {
		slog.Warn("refused", "addr", c.Request.RemoteAddr, "reason", "session")
		c.Header("WWW-Authenticate", "Cookie")
		c.String(http.StatusUnauthorized, "Unauthorized")
		return "", since, false
	}
	return name, since, true
}

func (d *dashboard) logout(c *gin.Context) {
	name, _, ok := d.current(c)
	if !ok {
		return
	}
	d.mu.Lock()
	d.logouts[name] = time.Now()
	for s := range d.sockets {
		if s.user == name {
			s.end(errLoggedOut)
		}
	}
	d.mu.Unlock()
	s := sessions.Default(c)
	s.Clear()
	s.Options(sessions.Options{Path: "/", MaxAge: -1, HttpOnly: true})
	if s.Save() != nil {
		c.Status(http.StatusInternalServerError)
		return
	}
	c.Status(http.StatusNoContent)
}

func (d *dashboard) publish(c *gin.Context) {
	name, _, ok := d.current(c)
	if !ok {
		return
	}
	topic, value := c.Param("topic"), json.RawMessage{}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 4<<10)
	_, known := d.latest[topic]
	switch {
	case !known || !d.users[name].can("publish", topic):
		c.Status(http.StatusForbidden)
	case c.ShouldBindJSON(&value) != nil:
		c.Status(http.StatusBadRequest)
	default:
		message, _ := json.Marshal(gin.H{"topic": topic, "value": value})
		d.send(topic, message)
		c.Status(http.StatusNoContent)
	}
}

func (d *dashboard) send(topic string, message []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest[topic] = message
	for s := range d.sockets {
		if !d.users[s.user].can("read", topic) {
			continue
		}
		select {
		case s.send <- message:
		default:
			s.end(errSlow)
		}
	}
}

// enter reports whether the login is still valid: the user may have logged out
// since the request began.
func (d *dashboard) enter(s *socket, since time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !since.After(d.logouts[s.user]) {
		return false
	}
	d.sockets[s] = true
	for topic, message := range d.latest {
		if message != nil && d.users[s.user].can("read", topic) {
			s.send <- message
		}
	}
	return true
}

func (d *dashboard) leave(s *socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sockets, s)
}

func (d *dashboard) live(c *gin.Context) {
	name, since, ok := d.current(c)
	if !ok {
		return
	}
	ws, err := websocket.Accept(c.Writer, c.Request, nil) // checks the host of the origin
	if err != nil {
		return
	}
	defer ws.CloseNow()
	expiring, cancel := context.WithDeadline(c.Request.Context(), since.Add(lifetime))
	defer cancel()
	ctx, end := context.WithCancelCause(ws.CloseRead(expiring))
	defer end(nil)
	s := &socket{name, make(chan []byte, 256), end}
	if !d.enter(s, since) {
		ws.Close(4401, "")
		return
	}
	defer d.leave(s)
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for err == nil {
		writing, cancel := context.WithTimeout(context.Background(), writeWait)
		select {
		case message := <-s.send:
			err = ws.Write(writing, websocket.MessageText, message)
		case <-ping.C:
			err = ws.Ping(writing)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		cancel()
	}
	switch {
	case errors.Is(err, errLoggedOut), errors.Is(err, context.DeadlineExceeded):
		ws.Close(4401, "")
	case errors.Is(err, errSlow):
		ws.Close(websocket.StatusPolicyViolation, "")
	}
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

func site(origin, users string, topics ...string) (http.Handler, error) {
	d := &dashboard{logouts: map[string]time.Time{}, sockets: map[*socket]bool{}, latest: map[string][]byte{}}
	file, badFile := os.ReadFile(users)
	badUsers := json.Unmarshal(file, &d.users)
	foreign := http.NewCrossOriginProtection()
	if err := errors.Join(badFile, badUsers, foreign.AddTrustedOrigin(origin)); err != nil {
		return nil, err
	}
	for _, name := range topics {
		d.latest[name] = nil
	}
	key := make([]byte, 64)
	rand.Read(key)
	store := cookie.NewStore(key)
	store.Options(sessions.Options{
		Path: "/", MaxAge: int(lifetime.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(origin, "https:"),
	})
	router := gin.New()
	router.Use(sessions.Sessions("session", store))
	router.POST("/login", d.login)
	router.POST("/logout", d.logout)
	router.POST("/topics/:topic", d.publish)
	router.GET("/live", d.live)
	limited := httprate.LimitBy(60, time.Minute, byAddress)(router)
	mux := http.NewServeMux()
	mux.Handle("/", router)
	mux.Handle("/login", limited)
	mux.Handle("/live", limited)
	return secure(foreign.Handler(mux)), nil
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	h, err := site(os.Getenv("ORIGIN"), os.Getenv("USERS_FILE"), strings.Fields(os.Getenv("TOPICS"))...)
	if err == nil {
		server := http.Server{Addr: cmp.Or(os.Getenv("ADDR"), "localhost:8080"), Handler: h, ReadHeaderTimeout: 10 * time.Second}
		err = server.ListenAndServe()
	}
	slog.Error("stopped", "error", err)
	os.Exit(1)
}
