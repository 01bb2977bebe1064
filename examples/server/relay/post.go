package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
)

// PostPath is the path at which programs publish without a WebSocket.
const PostPath = "/publish"

// PostConfig configures [Relay.PostHandler].
type PostConfig struct {
	// Origins decides which pages may publish. A page of another origin cannot:
	// a browser asks first, and is refused.
	Origins wsauth.Origins
	// Refuse, if set, answers a client that may not send tokens, and reports
	// whether it has done so.
	Refuse func(http.ResponseWriter, *http.Request, netip.Addr) bool
	// Audit, if set, gets a [wsauth.EventOriginRefused] for each request of a
	// foreign page.
	Audit func(wsauth.Event)
}

// PostHandler returns the handler of [PostPath]. A request is a POST of one
// message with Content-Type: application/json and Authorization: Bearer. The
// message is what a publisher sends over the socket, and the same limits hold.
// The answers are JSON:
//
//   - 202 {"pos":…}: the message is stored. With "duplicate":true, the device
//     has published a message of this id before, and pos is a position after
//     that one.
//   - 400: the message breaks the schema; "detail" names the field and the
//     rule.
//   - 401: the token is refused, for whatever reason.
//   - 403: the token has no permission to publish here, the client may not send
//     tokens, or the request comes from a page of another origin.
//   - 405, 415: the request is no POST of JSON.
//   - 409: the device has too many connections, or the operator or a newer
//     connection has ended this one. The client may try again after a minute.
//   - 413: the message is longer than [MaxMessage].
//   - 429, with Retry-After: the client publishes faster than the limit.
//   - 503, with Retry-After: the message cannot be stored now.
//
// Unless the answer is 202, nothing is stored. Only after a 503 that says so,
// or without an answer, is that not known. A client sends the message again,
// with the same id.
//
// All requests of a device from one address are one session of the gate. It
// ends after a minute without a request. So the operator sees and ends such a
// publisher like any other, and the audit has a few events for it and not one
// for each message.
func (r *Relay) PostHandler(cfg PostConfig) http.Handler {
	if cfg.Refuse == nil {
		cfg.Refuse = func(http.ResponseWriter, *http.Request, netip.Addr) bool { return false }
	}
	if cfg.Audit == nil {
		cfg.Audit = func(wsauth.Event) {}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if p, session := r.admit(&cfg, w, req); p != nil {
			r.post(p, session, w, req)
		}
	})
}

// admit returns the poster that may publish with the request, and its session,
// or answers the request and returns nil. It does not read the body, so a
// stranger cannot make the relay wait for one.
func (r *Relay) admit(cfg *PostConfig, w http.ResponseWriter, req *http.Request) (*poster, *wsauth.Session) {
	addr := r.cfg.ClientIP(req)
	foreign := cfg.Origins.Check(req)
	switch {
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "Method not allowed", "use POST")
		return nil, nil
	case r.Stopping():
		unavailable(w, "the server is stopping")
		return nil, nil
	case foreign != nil:
		cfg.Audit(refusedOrigin(addr, foreign))
		refuse(w, http.StatusForbidden, "Forbidden", "a page of another origin cannot publish")
		return nil, nil
	case cfg.Refuse(&worded{ResponseWriter: w, detail: "this address may not publish now"}, req, addr):
		return nil, nil
	case !isJSON(req.Header):
		refuse(w, http.StatusUnsupportedMediaType, "Unsupported media type", "send Content-Type: application/json, not compressed")
		return nil, nil
	}
	id, err := r.cfg.Gate.Authenticate(&worded{ResponseWriter: w}, req)
	if err != nil {
		return nil, nil
	}
	p, session, err := r.posters.of(req.Context(), r, id, wsauth.Peer{Addr: addr, ID: r.cfg.Room})
	_, undecided := errors.AsType[*wsauth.UnavailableError](err)
	refused, _ := errors.AsType[*wsauth.Error](err)
	switch {
	case err == nil:
		return p, session
	case undecided, errors.Is(err, errPosters):
		unavailable(w, "the server cannot decide about the token now")
	case refused != nil && refused.Reason == wsauth.ReasonPermission:
		refuse(w, http.StatusForbidden, "Forbidden", r.unpermitted())
	case refused != nil:
		refuse(w, http.StatusConflict, "Not now", "the operator or a newer connection of this device has ended this one; try again after a minute")
	case r.stillValid(req):
		refuse(w, http.StatusConflict, "Not now", "the device has as many connections as it may have; try again later")
	default: // it was revoked in this moment
		refuse(w, http.StatusUnauthorized, "Authentication failed", "")
	}
	return nil, nil
}

// unpermitted is why a token without permission is refused.
func (r *Relay) unpermitted() string {
	if r.cfg.Room == "" {
		return "the token has no permission to publish"
	}
	return "the token has no permission to publish in this room"
}

// stillValid reports whether the token of a request is valid, so that only the
// number of sessions can have been the reason to refuse it.
func (r *Relay) stillValid(req *http.Request) bool {
	token, _ := wsauth.FromBearer(req)
	_, err := r.cfg.Gate.Verify(req.Context(), []byte(token), time.Now())
	return err == nil
}

// post stores the message in the body of an admitted request.
func (r *Relay) post(p *poster, session *wsauth.Session, w http.ResponseWriter, req *http.Request) {
	if wait := p.wait(); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		refuse(w, http.StatusTooManyRequests, "Too many messages", "publish more slowly, or several words in a message")
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, req.Body, MaxMessage))
	if _, tooBig := errors.AsType[*http.MaxBytesError](err); tooBig {
		refuse(w, http.StatusRequestEntityTooLarge, "Message too big", "a message has at most "+strconv.Itoa(MaxMessage)+" bytes")
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "Bad request", "the message did not arrive whole, or not in time")
		return
	}
	m, err := decodePost(data)
	if schema, ok := errors.AsType[*wire.SchemaError](err); ok {
		r.counts.invalid.Add(1)
		answerJSON(w, http.StatusBadRequest, schema.Answer())
		return
	}
	if err != nil {
		r.counts.invalid.Add(1)
		refuse(w, http.StatusBadRequest, "Invalid JSON", "")
		return
	}
	pos, duplicate, err := r.store(session, &m)
	switch {
	case err == nil:
		text, _ := json.Marshal(struct { // a string and a bool: cannot fail
			Pos       string `json:"pos"`
			Duplicate bool   `json:"duplicate,omitempty"`
		}{pos.String(), duplicate})
		answerJSON(w, http.StatusAccepted, text)
		return
	case errors.Is(err, history.ErrTooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "Message too big", "the history cannot hold it")
		return
	case errors.Is(err, history.ErrUncertain):
		unavailable(w, "it is not known whether the message is stored: a message with an id can be sent again")
	default:
		unavailable(w, "the message cannot be stored now")
	}
	r.counts.unpublished.Add(1)
	r.log.Error("publishing failed", "error", err)
}

// decodePost is [wire.Decode] with the checks that a session makes of every
// message: text is UTF-8, and JSON is not nested deeply.
func decodePost(data []byte) (wire.Message, error) {
	if !utf8.Valid(data) {
		return wire.Message{}, wsauth.ErrInvalidUTF8
	}
	_, isToken, err := wsauth.JSONDialect{}.Token(data)
	if err == nil && isToken {
		err = &wire.SchemaError{Field: "token", Rule: "belongs in the header Authorization"}
	}
	if err != nil {
		return wire.Message{}, err
	}
	return wire.Decode(data)
}

// isJSON reports whether a body is declared as JSON in UTF-8, not compressed.
func isJSON(h http.Header) bool {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset := params["charset"]
	return err == nil && media == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8")) && h.Get("Content-Encoding") == ""
}

// Refuse answers a request as [Relay.PostHandler] does, with the reason why.
func Refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Cache-Control", "no-store")
	refuse(w, status, http.StatusText(status), why)
}

func refuse(w http.ResponseWriter, status int, text, detail string) {
	answerJSON(w, status, wire.Refusal(text, detail))
}

func unavailable(w http.ResponseWriter, detail string) {
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, "Unavailable", detail)
}

func answerJSON(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// worded turns an error in plain text, of a handler that it is given to, into
// JSON.
type worded struct {
	http.ResponseWriter
	detail string
}

func (w *worded) WriteHeader(status int) {
	text := http.StatusText(status)
	switch status {
	case http.StatusUnauthorized:
		text = "Authentication failed" // as over the socket
	case http.StatusServiceUnavailable:
		text = "Unavailable"
	}
	refuse(w.ResponseWriter, status, text, w.detail)
}

// Write drops the plain text.
func (w *worded) Write(b []byte) (int, error) { return len(b), nil }

// Starting answers requests for [PostPath] while there is no relay yet.
func Starting(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	unavailable(w, "the server is starting")
}

// postConn is the connection of a session whose messages come by requests.
// Nothing reads from it, and what the session writes is in no answer.
type postConn struct{}

var errNoConn = errors.New("relay: there is no connection to read from")

func (postConn) Read(context.Context) ([]byte, error) { return nil, errNoConn }
func (postConn) Write(context.Context, []byte) error  { return nil }
func (postConn) Close(int, string) error              { return nil }
func (postConn) Abort() error                         { return nil }
