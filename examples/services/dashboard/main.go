// Command dashboard shows figures live to users who log in with a password. It
// uses gin and coder/websocket, and session cookies of its own.
//
//	POST /login          name=…&password=… sets the cookie
//	POST /logout         ends all logins of the user, and their WebSockets
//	POST /topics/NAME    publishes the JSON of the body
//	GET  /live           a WebSocket, which sends {"topic":"sales","value":…}
//
// A file lists the users, each with a hash of the password (bcrypt), and with
// permissions such as "read:sales" and "publish:sales". A WebSocket sends the
// last value and every new one of the topics that its user may read.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	"golang.org/x/crypto/bcrypt"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

const (
	lifetime = 8 * time.Hour // of a login
	// decoy is the hash of a password that was forgotten. It is compared if a
	// name is unknown, so that the answer takes as long as for a known one.
	decoy = "$2a$10$vsKpNTMaXHeQTY0ER0U9Y.mgUJpLwxadLEbc3uSSQPbkHF6uAdyEu"
)

type user struct{ Password, Permissions string }

// logins has the identity of each login, by the value of its cookie.
type logins struct{ sync.Map }

// Verify implements [wsauth.Verifier].
func (l *logins) Verify(_ context.Context, cookie []byte, _ time.Time) (wsauth.Identity, error) {
	if id, ok := l.Load(string(cookie)); ok {
		return id.(wsauth.Identity), nil
	}
	return wsauth.Identity{}, &wsauth.Error{Reason: wsauth.ReasonUnknown}
}

type dashboard struct {
	users   map[string]user
	logins  logins
	origins wsauth.Origins
	cookie  wsauth.Source
	gate    *wsauth.Gate
	adapter *wsadapter.Adapter
	limit   *ratelimit.Limiter
	topics  map[string]*history.Log
}

func (d *dashboard) login(w http.ResponseWriter, r *http.Request) {
	name, now, cookie := r.PostFormValue("name"), time.Now(), rand.Text()
	hash := cmp.Or(d.users[name].Password, decoy)
	if d.origins.Check(r) != nil || bcrypt.CompareHashAndPassword([]byte(hash), []byte(r.PostFormValue("password"))) != nil {
		d.limit.Fail(ratelimit.Key{Addr: d.gate.Peer(r).Addr}) // ten failures block the address
		http.Error(w, "wrong name or password", http.StatusUnauthorized)
		return
	}
	permissions := strings.Fields(d.users[name].Permissions)
	d.logins.Store(cookie, wsauth.Identity{Subject: name, Permissions: permissions, IssuedAt: now, ExpiresAt: now.Add(lifetime)})
	time.AfterFunc(lifetime, func() { d.logins.Delete(cookie) })
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: cookie, Path: "/", MaxAge: int(lifetime.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: strings.HasPrefix(d.origins.Allow[0], "https:"),
	})
	w.WriteHeader(http.StatusNoContent)
}

func (d *dashboard) logout(c *gin.Context) {
	user, err := d.gate.Authenticate(c.Writer, c.Request, d.cookie)
	if err != nil {
		return // Authenticate has answered with 401
	}
	d.gate.Revoke(user.Subject, time.Now())
	c.SetCookie("session", "", -1, "/", "", false, true)
	c.Status(http.StatusNoContent)
}

func (d *dashboard) publish(c *gin.Context) {
	user, err := d.gate.Authenticate(c.Writer, c.Request, d.cookie)
	if err != nil {
		return
	}
	name, value := c.Param("topic"), json.RawMessage{}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 4<<10)
	switch topic := d.topics[name]; {
	case topic == nil || !user.Can(wsauth.Publish, name):
		c.Status(http.StatusForbidden)
	case c.ShouldBindJSON(&value) != nil:
		c.Status(http.StatusBadRequest)
	default:
		message, _ := json.Marshal(gin.H{"topic": name, "value": value})
		_, _ = topic.Append(c, message) // a log in memory takes everything
		c.Status(http.StatusNoContent)
	}
}

func (d *dashboard) live(w http.ResponseWriter, r *http.Request) {
	user, err := d.gate.Authenticate(w, r, d.cookie)
	if err != nil {
		return
	}
	rw := d.adapter.Wrap(w)
	ws, err := websocket.Accept(rw, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // d.cookie has checked the origin
	if err != nil {
		return // Accept has answered
	}
	session, err := d.gate.AttachIdentity(r.Context(), wsadapter.Coder(ws, rw), d.gate.Peer(r), user)
	if err != nil {
		return // AttachIdentity has closed the connection
	}
	defer session.Close(int(websocket.StatusNormalClosure), "")
	for name, topic := range d.topics {
		if user.Can(wsauth.Read, name) {
			go deliver(r.Context(), session, name, topic.Reader(history.Last(1)))
		}
	}
	for err == nil {
		_, err = session.Next(r.Context()) // discards what the client sends
	}
}

// deliver sends a topic to one WebSocket, until live returns.
func deliver(ctx context.Context, session *wsauth.Session, topic string, values *history.Reader) {
	for {
		batch, err := values.Next(ctx)
		if err != nil {
			return
		}
		for _, v := range batch.Entries {
			if session.Authorize(wsauth.Read, topic) != nil || session.Reply(ctx, v.Data) != nil {
				return
			}
		}
	}
}

func site(origin, users string, topics ...string) (http.Handler, error) {
	origins := wsauth.Origins{Allow: []string{origin}}
	d := &dashboard{origins: origins, cookie: wsauth.FromCookie("session", origins), topics: map[string]*history.Log{}}
	file, badFile := os.ReadFile(users)
	badUsers := json.Unmarshal(file, &d.users)
	var badGate, badAdapter, badLimit, badTopic error
	d.gate, badGate = wsauth.New(wsauth.Config{
		Verifier: &d.logins, Dialect: wsauth.NoDialect{}, OnExpiry: wsauth.OnExpiryClose, Audit: wsauth.AuditLog(slog.Default()),
	})
	d.adapter, badAdapter = wsadapter.New(wsadapter.Config{})
	d.limit, badLimit = ratelimit.New(ratelimit.Config{Penalty: ratelimit.Penalty{Failures: 10}})
	for _, name := range topics {
		d.topics[name], badTopic = history.Open(context.Background(), history.Config{})
	}
	secure, badPolicy := headers.New(headers.Strict())
	if err := errors.Join(origins.Validate(), badFile, badUsers, badGate, badAdapter, badLimit, badTopic, badPolicy); err != nil {
		return nil, err
	}
	router := gin.New()
	router.POST("/login", gin.WrapH(d.limit.Handler(http.HandlerFunc(d.login))))
	router.POST("/logout", d.logout)
	router.POST("/topics/:topic", d.publish)
	router.GET("/live", gin.WrapH(d.limit.Handler(http.HandlerFunc(d.live))))
	return secure.Handler(router), nil
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
