package doctor

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// endBound is how long a refused connection may stay open. The protocol
	// allows a second.
	endBound = 5 * time.Second
	// historyWait is how long the doctor waits for the history. A server with
	// an empty history sends nothing.
	historyWait = 2 * time.Second
	// placeWait is the pause between attempts that should be refused.
	placeWait = 500 * time.Millisecond

	maxHistory     = 1200
	maxConnections = 10
)

// checkSocket opens six connections, one after the other, and then those of
// checkRateLimit. That check must be the last, because the server may refuse
// this address after it.
func (p *probe) checkSocket() {
	own, a := p.upgrade("Origin", p.origin())
	bare, b := p.upgrade()
	switch {
	case bare == nil:
		p.note("websocket.upgrade", Fail, "%s", refusal(b))
		for _, id := range []string{"headers.upgrade", "origin", "rate-limit", "rate-limit.answer", "proxy.forwarded", "websocket.size", "websocket.cleanup", "auth.refused", "auth.close", "auth.json", "auth.token", "history"} {
			p.note(id, Skipped, "the WebSocket cannot be opened: see websocket.upgrade")
		}
		if own != nil {
			own.conn.Close()
		}
		return
	case own == nil && a.status != http.StatusForbidden:
		p.note("websocket.upgrade", Fail, "with the site's own Origin: %s", refusal(a))
	default:
		p.note("websocket.upgrade", OK, "opened")
	}
	p.checkHeaders("headers.upgrade", "upgrade", b)
	p.checkHistory(bare)
	p.checkJSON(bare)
	p.checkOrigin(own, a)
	p.checkRefusals()
	p.checkSize()
	p.checkToken()
	p.checkRateLimit()
}

func refusal(a answer) string {
	if a.err != nil {
		return "no answer: " + plainError(a.err)
	}
	text := fmt.Sprintf("answered %d", a.status)
	if after := a.header.Get("Retry-After"); after != "" {
		text += ", Retry-After " + quote(after)
	}
	return text
}

// checkOrigin checks that the site's own page is admitted and a foreign one is
// refused. own and a are the result of the upgrade with the site's own origin.
func (p *probe) checkOrigin(own *socket, a answer) {
	var problems []string
	if own != nil {
		own.leave()
	} else if a.status == http.StatusForbidden {
		problems = append(problems, "the site's own "+p.origin()+" is refused, so no page can connect")
	}
	foreign, b := p.upgrade("Origin", p.ForeignOrigin)
	p.foreign = b.status
	if foreign != nil {
		foreign.leave()
		problems = append(problems, "a page of "+p.ForeignOrigin+" may connect")
	} else if b.status != http.StatusForbidden {
		problems = append(problems, "a page of "+p.ForeignOrigin+" is not refused with 403: "+refusal(b))
	}
	p.judge("origin", problems, "%s may connect, %s gets 403", p.origin(), p.ForeignOrigin)
}

// checkHistory checks the history, which arrives on s in one frame or in
// several. If there is no history, no frame arrives.
func (p *probe) checkHistory(s *socket) {
	_ = s.conn.SetReadDeadline(p.within(min(historyWait, p.Timeout)))
	if _, err := s.r.Peek(1); isTimeout(err) {
		p.note("history", Skipped, "there is none yet")
		return
	}
	_ = s.conn.SetReadDeadline(p.within(p.Timeout))
	op, first, err := s.next()
	switch {
	case isTimeout(err):
		p.note("history", Skipped, "there is none yet")
		return
	case err != nil:
		p.note("history", Fail, "the first frame cannot be read: %s", plainError(err))
		return
	case op != opText:
		p.note("history", Fail, "the first frame is not text")
		return
	}
	n, problems := p.history(s, first)
	p.judge("history", problems, "%d messages, each with its time and without identity", n)
}

// A frame with fewer than leastPiece messages, or after piecePause, is no piece
// of the history: its messages have just been published.
const (
	leastPiece = 8
	piecePause = 500 * time.Millisecond
)

// history counts and checks the messages of the first frame and of the pieces
// after it, and stops at tooMuch.
func (p *probe) history(s *socket, first []byte) (n int, problems []string) {
	until := p.within(min(historyWait, p.Timeout))
	n, problems = historyProblems(first, time.Now())
	for last := n; last >= leastPiece && n < tooMuch && time.Now().Before(until); n += last {
		_ = s.conn.SetReadDeadline(p.within(min(piecePause, p.Timeout)))
		if _, err := s.r.Peek(1); err != nil {
			break
		}
		_ = s.conn.SetReadDeadline(p.within(p.Timeout))
		op, frame, err := s.next()
		if err != nil || op != opText {
			break
		}
		var more []string
		if last, more = historyProblems(frame, time.Now()); last < leastPiece {
			break
		}
		for _, problem := range more {
			if !slices.Contains(problems, problem) && len(problems) < 5 {
				problems = append(problems, problem)
			}
		}
	}
	if n > maxHistory {
		more := ""
		if n >= tooMuch {
			more = "at least "
		}
		problems = append(problems, fmt.Sprintf("%s%d messages are kept, more than %d", more, n, maxHistory))
	}
	return n, problems
}

// tooMuch is the number of messages at which counting stops.
const tooMuch = 20 * maxHistory

// fields are the fields of a message that viewers may get.
var fields = []string{"text", "memory", "status", "prompt", "timestamp"}

// historyProblems returns the number of messages in frame and their problems.
// It decodes one message at a time, and at most tooMuch.
func historyProblems(frame []byte, now time.Time) (n int, problems []string) {
	var kind struct{ Type string }
	d := json.NewDecoder(bytes.NewReader(frame))
	if json.Unmarshal(frame, &kind) != nil || kind.Type != "history" && kind.Type != "live" {
		return 0, []string{"the first frame is not a history"}
	}
	once := func(problem string) {
		if !slices.Contains(problems, problem) && len(problems) < 5 {
			problems = append(problems, problem)
		}
	}
	if !seek(d, "messages") {
		return 0, []string{"the first frame has no messages"}
	}
	for ; d.More() && n < tooMuch; n++ {
		var m map[string]json.RawMessage
		if d.Decode(&m) != nil {
			return n, []string{"a message is not an object"}
		}
		var at int64
		// Milliseconds from 2001 on are above 1e12, and seconds far below. A
		// clock may be a day ahead.
		if json.Unmarshal(m["timestamp"], &at) != nil || at < 1e12 || at > now.Add(24*time.Hour).UnixMilli() {
			once("a message has no timestamp in milliseconds")
		}
		for name := range m {
			if !slices.Contains(fields, name) {
				once("a message carries " + quote(name))
			}
		}
	}
	return n, problems
}

// seek moves d into the array in the object's field name, and reports whether
// there is one.
func seek(d *json.Decoder, name string) bool {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return false
		}
		if key == name {
			t, err := d.Token()
			return err == nil && t == json.Delim('[')
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return false
		}
	}
	return false
}

// checkJSON sends a message that is not JSON, and checks the answer and the
// close code.
func (p *probe) checkJSON(s *socket) {
	_ = s.conn.SetDeadline(p.within(p.Timeout))
	if err := s.send(opText, []byte("{")); err != nil {
		s.conn.Close()
		p.note("auth.json", Fail, "the connection ended: %s", plainError(err))
		return
	}
	e := s.end(min(endBound, p.Timeout), false)
	var answer struct{ Error string }
	switch {
	case len(e.answers) != 1 || json.Unmarshal([]byte(e.answers[0]), &answer) != nil || answer.Error == "":
		p.note("auth.json", Fail, "a message that is not JSON is answered %s", said(strings.Join(e.answers, " ")))
	case e.code != 1007:
		p.note("auth.json", Fail, "after a message that is not JSON, the connection is closed with %d, not 1007", e.code)
	default:
		p.note("auth.json", OK, "answered %s and closed with 1007", said(e.answers[0]))
	}
}

// badTokens returns three invalid tokens. Each counts as a failure of this
// address, which the server blocks after ten failures in ten minutes, so there
// are no more. The doctor cannot make an expired token without the secret, but
// Config.Token may be one.
func badTokens() []string {
	part := base64.RawURLEncoding.EncodeToString
	claims := part(fmt.Appendf(nil, `{"device":"doctor","exp":%d}`, time.Now().Add(time.Hour).Unix()))
	signed := part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + claims
	key := make([]byte, 32)
	rand.Read(key)
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, signed)
	return []string{
		"no.token.atall",
		part([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + claims + ".",
		signed + "." + part(mac.Sum(nil)),
	}
}

// checkRefusals checks that every invalid token gets the same answer, and that
// the connection ends.
func (p *probe) checkRefusals() {
	var alike, closing []string
	var first string
	wait := min(endBound, p.Timeout)
	names := []string{"garbage", "alg none", "an unknown device and key"}
	for i, token := range badTokens() {
		e, err := p.show(p.insecureTLS(), token, wait, i == 0)
		if err != "" {
			p.note("auth.refused", Fail, "%s: %s", names[i], err)
			p.note("auth.close", Skipped, "see auth.refused")
			return
		}
		answers := strings.Join(e.answers, " ")
		if i == 0 {
			first = answers
		}
		var answer struct{ Error string }
		switch {
		case len(e.answers) != 1 || json.Unmarshal([]byte(answers), &answer) != nil || answer.Error == "":
			alike = append(alike, names[i]+" is answered "+said(answers))
		case answers != first:
			alike = append(alike, names[i]+" is answered "+said(answers)+", "+names[0]+" "+said(first))
		}
		if problem := e.problem(wait); problem != "" {
			if closing = append(closing, names[i]+": "+problem); !e.gone {
				wait = min(wait, time.Second) // the full wait is not repeated for each token
			}
		}
	}
	p.judge("auth.refused", alike, "garbage, alg none, an unknown device and key: each %s", said(first))
	p.judge("auth.close", closing, "each connection was closed with 4401 and ended within %v, even the one whose close frame was not answered", min(endBound, p.Timeout))
}

// problem returns the problem with the end of a refused connection, or "".
func (e ending) problem(wait time.Duration) string {
	switch {
	case !e.gone:
		return fmt.Sprintf("the connection is still open after %v", wait)
	case e.code != 4401:
		return fmt.Sprintf("closed with %d, not 4401", e.code)
	}
	return ""
}

// show opens a connection as in cfg, sends token and reads until the end. wait
// and mute are those of socket.end. If there is no connection, it returns the
// problem.
func (p *probe) show(cfg *tls.Config, token string, wait time.Duration, mute bool) (e ending, problem string) {
	s, a := p.upgradeOver(cfg)
	if s == nil {
		return e, "no connection: " + refusal(a)
	}
	message, _ := json.Marshal(map[string]string{"token": token}) // strings always encode
	if err := s.send(opText, message); err != nil {
		s.conn.Close()
		return e, "the connection ended: " + plainError(err)
	}
	return s.end(wait, mute), ""
}

func (p *probe) checkSize() {
	s, a := p.upgrade()
	if s == nil {
		p.note("websocket.size", Fail, "no connection: %s", refusal(a))
		return
	}
	// A server may refuse the message before all of it has arrived. Then send
	// fails, but the close frame can still be read.
	_ = s.send(opText, []byte(`{"token":"`+strings.Repeat("a", 8<<10)+`"}`))
	if e := s.end(min(endBound, p.Timeout), false); e.code != 1009 {
		p.note("websocket.size", Fail, "after 8 KiB before authentication, the connection is closed with %d, not 1009", e.code)
		return
	}
	p.note("websocket.size", OK, "after 8 KiB before authentication, the connection is closed with 1009")
}

// checkToken sends the operator's token, and publishes nothing with it.
func (p *probe) checkToken() {
	switch {
	case p.Token == "":
		p.note("auth.token", Skipped, "no token was given")
		return
	case !p.trusted:
		p.note("auth.token", Skipped, "a token is sent only over TLS with a valid certificate")
		return
	case expired(p.Token, time.Now()):
		e, problem := p.show(p.strictTLS(), p.Token, min(endBound, p.Timeout), false)
		if problem == "" && (e.code != 4401 || slices.ContainsFunc(e.answers, authenticated)) {
			problem = fmt.Sprintf("an expired token is answered %s and closed with %d", said(strings.Join(e.answers, " ")), e.code)
		}
		if problem != "" {
			p.note("auth.token", Fail, "%s", problem)
		} else {
			p.note("auth.token", OK, "the expired token is refused")
		}
		return
	}
	s, a := p.upgradeOver(p.strictTLS())
	if s == nil {
		p.note("auth.token", Fail, "no connection to send it on: %s", refusal(a))
		return
	}
	defer s.leave()
	message, _ := json.Marshal(map[string]string{"token": p.Token})
	_ = s.send(opText, message) // if it fails, next fails too
	for {
		op, m, err := s.next()
		switch {
		case err != nil || op == opClose:
			p.note("auth.token", Fail, "the token is not accepted")
			return
		case authenticated(string(m)):
			p.note("auth.token", OK, "the token is accepted")
			return
		}
	}
}

func authenticated(message string) bool {
	var m struct{ Status any }
	return json.Unmarshal([]byte(message), &m) == nil && m.Status == "authenticated"
}

// expired reports whether the exp of an unverified token has passed.
func expired(token string, now time.Time) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct{ Exp float64 }
	return err == nil && json.Unmarshal(claims, &c) == nil && c.Exp > 0 && c.Exp <= float64(now.Unix())
}

// checkRateLimit opens connections until one is refused, but at most eleven. It
// closes all of them at the end.
func (p *probe) checkRateLimit() {
	ids := []string{"rate-limit", "rate-limit.answer", "proxy.forwarded", "websocket.cleanup"}
	rest := func(ids []string, why string) {
		for _, id := range ids {
			p.note(id, Skipped, "%s", why)
		}
	}
	if p.SkipRateLimit {
		rest(ids, "left out as requested")
		return
	}
	var open []*socket
	defer func() {
		var all sync.WaitGroup
		for _, s := range open {
			all.Go(s.leave)
		}
		all.Wait()
	}()
	var refused answer
	for len(open) <= maxConnections {
		s, a := p.upgrade()
		if s == nil {
			refused = a
			break
		}
		open = append(open, s)
	}
	switch {
	case len(open) > maxConnections:
		p.note(ids[0], Fail, "%d connections at once are admitted", len(open))
		rest(ids[1:], "nothing was refused: see rate-limit")
		return
	case refused.status != http.StatusTooManyRequests:
		p.note(ids[0], Fail, "connection %d is not refused with 429: %s", len(open)+1, refusal(refused))
		rest(ids[1:], "see rate-limit")
		return
	case len(open) == 0:
		rest(ids, "this address had used up its connections already: run again in a minute")
		return
	}
	p.note(ids[0], OK, "after %d connections the next is refused", len(open))

	lines := refused.header.Values("Retry-After")
	after, err := strconv.Atoi(strings.Join(lines, " and "))
	if err != nil || after < 1 || after > 3600 {
		p.note(ids[1], Fail, "429 with Retry-After %s, want seconds, at most an hour", quote(strings.Join(lines, " and ")))
	} else {
		p.note(ids[1], OK, "429 with Retry-After: %d", after)
	}

	const forged = "198.51.100.77" // for documentation (RFC 5737)
	var s *socket
	var a answer
	// The server may release the place of an earlier connection only now, so
	// one admission proves nothing. There are fewer attempts than an address
	// has places, or the forged one would reach a limit of its own.
	for range min(3, len(open)) {
		if s, a = p.upgrade("X-Forwarded-For", forged, "X-Real-IP", forged, "Forwarded", "for="+forged); s == nil {
			break
		}
		open = append(open, s)
		p.pause(placeWait)
	}
	switch {
	case s != nil:
		if p.near.Load() {
			p.note(ids[2], Skipped, "the server believes a forged X-Forwarded-For from this machine or network, which it may trust as a proxy: run from elsewhere")
		} else {
			p.note(ids[2], Fail, "a client that forges X-Forwarded-For, X-Real-IP or Forwarded is not limited")
		}
	case a.status == http.StatusTooManyRequests:
		p.note(ids[2], OK, "a forged X-Forwarded-For changes nothing")
	default:
		p.note(ids[2], Fail, "with a forged X-Forwarded-For: %s", refusal(a))
	}

	open[0].leave()
	open = open[1:]
	for wait := 50 * time.Millisecond; wait < min(endBound, p.Timeout); wait *= 2 {
		if s, _ := p.upgrade(); s != nil {
			open = append(open, s)
			p.note(ids[3], OK, "after one connection was closed, the next is admitted")
			return
		}
		p.pause(wait)
	}
	p.note(ids[3], Fail, "after one connection was closed, the next is still refused")
}
