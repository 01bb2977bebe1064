package refresh

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/internal/strictjson"
)

const (
	maxBody     = 1 << 10
	readTimeout = 10 * time.Second
)

// answerRefused is the answer of a Session, too.
var answerRefused = []byte(`{"error":"Authentication failed"}`)

// Handler serves [Issuer.Refresh], for one path, such as /auth/refresh. It needs no cookie and takes nothing but
// application/json, so that no page of another origin can call it unasked.
//
//	POST, Content-Type: application/json, {"refresh_token":"…"} of at most 1 KiB, sent within 10 seconds
//	200 {"token":"…","expires_at":N,"refresh_token":"…"}, N in Unix seconds
//	401 {"error":"Authentication failed"}: whatever is wrong with the body or with the refresh token
//	503 {"error":"Unavailable"}: nothing was decided; the same token may be used again
//	405, 413, 415: not a POST, too large, not JSON
//
// A client that gets no answer, or a 503, sends the same request again at once, within the grace. Over a network,
// serve it with TLS only.
func (i *Issuer) Handler() http.Handler { return http.HandlerFunc(i.serve) }

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // RFC 6749, section 5.1
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		http.Error(w, "Unsupported media type", http.StatusUnsupportedMediaType)
		return
	}
	// Where it is not supported, the body is all in memory and there is nothing to wait for.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		http.Error(w, "Request body too large", http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "Bad request", http.StatusBadRequest)
		return
	}

	// A body that is none is an empty token, so that all refusals take the same way.
	token, _ := readBody(body)
	pair, err := i.Refresh(r.Context(), token, wsauth.Peer{Addr: i.cfg.ClientIP(r)})
	if refused, ok := errors.AsType[*wsauth.Error](err); ok {
		i.cfg.OnFailure(r, refused.Reason)
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110, section 15.5.2
		answer(w, http.StatusUnauthorized, answerRefused)
		return
	}
	if err != nil {
		answer(w, http.StatusServiceUnavailable, []byte(`{"error":"Unavailable"}`))
		return
	}
	text, err := json.Marshal(struct {
		Token        string `json:"token"`
		ExpiresAt    int64  `json:"expires_at"`
		RefreshToken string `json:"refresh_token"`
	}{pair.Token, pair.ExpiresAt.Unix(), pair.RefreshToken})
	if err != nil {
		answer(w, http.StatusServiceUnavailable, []byte(`{"error":"Unavailable"}`))
		return
	}
	answer(w, http.StatusOK, text)
}

func answer(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// readBody admits an object with the one member "refresh_token", a string, and no other.
func readBody(body []byte) (token string, ok bool) {
	members := 0
	m := strictjson.Read(body)
	for m.Next() {
		members++
		if strictjson.Is(m.Name(), "refresh_token") {
			token, ok = strictjson.String(m.Value())
		}
	}
	if m.Err != nil || members != 1 || !ok {
		return "", false
	}
	return token, true
}
