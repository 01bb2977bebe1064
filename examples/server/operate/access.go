package operate

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/wsauth"
)

// permissions are what the calls need, by their pattern. A call that is not
// listed needs the permission admin, which also admits to every other call.
var permissions = map[string]string{
	"GET /metrics":  authority.Metrics,
	"GET /sessions": authority.Sessions,
	"GET /watching": authority.Sessions,
	"GET /families": authority.Sessions,
	"GET /keys":     authority.Sessions,
	"GET /audit":    authority.Audit,
	"GET /reports":  authority.Audit,
	"GET /blocks":   authority.Blocks,

	"GET /debug/pprof/{profile}": authority.Profile,
}

// socketKey is the context's key of the caller on a Unix socket.
type socketKey struct{}

// callerKey is the context's key of the name of an admitted caller.
type callerKey struct{}

// caller returns the name of the caller that was admitted.
func caller(r *http.Request) string {
	by, _ := r.Context().Value(callerKey{}).(string)
	return by
}

// ConnContext is the ConnContext of the listener's [http.Server]. It marks the
// connections of a Unix socket, on which no token is needed: the socket's mode
// admits only processes of its owner and of root.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if unix, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, socketKey{}, socketCaller(unix))
	}
	return ctx
}

// admit calls next if the caller has the permission that the call needs, and
// reports every call to w.
func admit(a *authority.Authority, w *watch.Watch, next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, pattern := next.Handler(r)
		call := watch.Call{Pattern: pattern, Addr: host(r.RemoteAddr)}
		out := &recorder{ResponseWriter: rw, done: func(status int) {
			call.Status = status
			w.Called(call)
		}}
		defer out.end()
		id, ok := identify(a, r)
		call.By, call.TokenID = id.Subject, id.TokenID
		need := permissions[pattern]
		switch {
		case !ok:
			out.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(out, "Unauthorized", http.StatusUnauthorized)
		case !id.Can(wsauth.Admin) && (need == "" || !id.Can(need)):
			if need == "" {
				need = wsauth.Admin
			}
			http.Error(out, "Forbidden: this call needs the permission "+need, http.StatusForbidden)
		default:
			if need == authority.Metrics && !id.ExpiresAt.IsZero() {
				w.Scraped(id.ExpiresAt)
			}
			call.Path = r.URL.Path // an operator's, and no stranger's text
			next.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), callerKey{}, id.Subject)))
		}
	})
}

// identify returns the caller: the process at the other end of a Unix socket,
// or the subject of the token.
func identify(a *authority.Authority, r *http.Request) (id wsauth.Identity, ok bool) {
	if caller, ok := r.Context().Value(socketKey{}).(string); ok {
		return wsauth.Identity{Subject: caller, Permissions: []string{wsauth.Admin}}, true
	}
	token, found := wsauth.FromBearer(r)
	if !found {
		return id, false
	}
	id, err := a.Verify(r.Context(), []byte(token), time.Now())
	return id, err == nil
}

// recorder reports the status of an answer when the answer begins, since some
// answers have no end.
type recorder struct {
	http.ResponseWriter
	done func(status int) // nil after it was called
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if status >= 200 && r.done != nil {
		r.done(status)
		r.done = nil
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.done != nil {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

// end reports an answer that never began: a panic, which the caller answers
// with 500, or an empty answer.
func (r *recorder) end() {
	if r.done == nil {
		return
	}
	if v := recover(); v != nil {
		r.done(http.StatusInternalServerError)
		panic(v)
	}
	r.done(http.StatusOK)
}

// host is addr without its port; empty for a Unix socket.
func host(addr string) string {
	name, _, _ := net.SplitHostPort(addr)
	return name
}
