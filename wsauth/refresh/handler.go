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

// answerRefused is the answer to every refused token. A [wsauth.Session] sends
// the same text.
var answerRefused = []byte(`{"error":"Authentication failed"}`)

// Handler returns a handler for [Issuer.Refresh], for one path such as
// /auth/refresh. It uses no cookie and accepts only application/json. A page of
// another origin cannot call it: the browser first sends a CORS preflight,
// which gets 405.
//
// The request is a POST with Content-Type: application/json and the body
// {"refresh_token":"…"}, of at most 1 KiB, which must arrive within 10 seconds.
// The answers are:
//
//   - 200 {"token":"…","expires_at":N,"refresh_token":"…","ends_at":M}: the
//     next pair. The access token expires at N, and the family ends at M, in
//     Unix seconds.
//   - 401 {"error":"Authentication failed"}: the refresh token, or the JSON of
//     the body, was refused. The answer is the same for every reason.
//   - 503 {"error":"Unavailable"}: the store or the signer failed. The client
//     may use the same refresh token again.
//   - 400: the body did not arrive whole, or not in time.
//   - 405: the method is not POST.
//   - 413: the body is too large.
//   - 415: the Content-Type is not application/json.
//
// A client that gets 503 or no answer should immediately send the same request
// again, within [Config].Grace. Over a network, serve the handler only with
// TLS.
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
	// A ResponseWriter without this support has the whole body in memory, so
	// there is nothing to wait for.
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

	// A malformed body counts as an empty token, so that the same code refuses
	// both.
	token, _ := readBody(body)
	pair, err := i.Refresh(r.Context(), token, wsauth.Peer{Addr: i.cfg.ClientIP(r)})
	if refused, ok := refusalIn(err); ok {
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
		EndsAt       int64  `json:"ends_at"`
	}{pair.Token, pair.ExpiresAt.Unix(), pair.RefreshToken, pair.EndsAt.Unix()})
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

// readBody returns the token in an object whose only member is "refresh_token",
// a string.
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
