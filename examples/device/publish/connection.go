package publish

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
	"nhooyr.io/websocket"
)

// Close codes of the relay's protocol.
const (
	closeRefused  websocket.StatusCode = 4401
	closeReplaced websocket.StatusCode = 4409
)

// connection is one authenticated connection. Only the goroutine in serve uses
// its fields, unless the comment of a field says otherwise.
type connection struct {
	*publisher
	ws     *websocket.Conn
	socket net.Conn
	ctx    context.Context // ends with the connection, or lingerWait after stop
	cancel context.CancelFunc
	lost   chan error    // the error that ended reading
	told   *inbox        // the answers; the goroutine in listen fills it
	done   chan struct{} // closed when listen and ping have ended

	token    Token // the token that the relay accepted last
	shown    Token // a token that the relay has not answered
	waiting  bool  // for the answer to shown
	viewer   bool  // the relay accepts no messages, because token is no longer valid
	lastAcks int   // the number of acknowledgements when token was accepted

	renewAt    *time.Timer   // when to refresh token
	renewDelay time.Duration // the last delay between two refreshes
	complaint  string        // the last logged error of a refresh
	overdue    *time.Timer   // when the answer to shown is too late
}

// connection serves one connection. It returns nil when there is nothing left
// to do: the source has ended, or stop has ended, and all messages are
// acknowledged. It returns an error when the connection is lost.
func (p *publisher) connection(stop context.Context) error {
	c, err := p.dial(stop)
	if err != nil {
		return err
	}
	defer p.observe(false)
	err = c.serve(stop)
	c.close(err == nil)
	return err
}

// dial connects and authenticates.
func (p *publisher) dial(ctx context.Context) (_ *connection, err error) {
	token, err := p.token(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	// nhooyr's Close can wait forever for a peer that stalls, so the socket is
	// kept, to be closed directly.
	var socket net.Conn
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { socket = i.Conn }})
	ws, res, err := websocket.Dial(traced, p.endpoint(), &websocket.DialOptions{HTTPClient: p.cfg.Client})
	if err != nil {
		return nil, refusal(res, err)
	}
	defer func() {
		if err != nil {
			cut(socket)
			_ = ws.CloseNow()
		}
	}()
	ws.SetReadLimit(maxRead)
	if err := write(ctx, ws, hello(token)); err != nil {
		return nil, fmt.Errorf("publish: authenticating: %w", err)
	}
	// History and live frames may arrive before the answer.
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			if err = meaning(err); errors.Is(err, ErrRefused) {
				p.refused = &token
			}
			return nil, fmt.Errorf("publish: authenticating: %w", err)
		}
		switch answer := p.read(data); {
		case answer.Error != "":
			p.refused = &token
			return nil, ErrRefused
		case answer.Status == "authenticated":
			p.refused = nil
			c := &connection{publisher: p, ws: ws, socket: socket, token: token, told: newInbox(), lost: make(chan error, 1), done: make(chan struct{})}
			c.ctx, c.cancel = context.WithCancel(context.Background())
			return c, nil
		}
	}
}

// unavailableError is an answer of the relay with a status other than 101.
type unavailableError struct {
	status     int
	retryAfter time.Duration
}

func (e *unavailableError) Error() string {
	text := fmt.Sprintf("publish: the relay answers %d %s", e.status, http.StatusText(e.status))
	switch {
	case e.status/100 == 3:
		text += ": the token is not sent to another address: give that of the relay itself (-relay)"
	case e.status == http.StatusBadRequest, e.status == http.StatusNotFound:
		text += ": if the relay has rooms, name one of them in its URL (-relay), as in wss://art.example/ws?room=pi-1"
	}
	return text
}

// refusal returns the error of a handshake that failed with err.
func refusal(res *http.Response, err error) error {
	if res == nil || res.StatusCode == http.StatusSwitchingProtocols {
		return fmt.Errorf("publish: connecting: %w", err)
	}
	return &unavailableError{status: res.StatusCode, retryAfter: client.RetryAfter(res.Header, longDelay)}
}

// awayError is the end of a connection to a relay that goes away and said when
// the device may come back.
type awayError struct{ comeBack time.Duration }

func (e *awayError) Error() string { return "publish: the relay goes away" }
func (e *awayError) Unwrap() error { return errLost }

// meaning returns the error for the close code in err.
func meaning(err error) error {
	if end, ok := errors.AsType[websocket.CloseError](err); ok && end.Code == websocket.StatusGoingAway {
		if wait, ok := client.ComeBack(end.Reason, longDelay); ok {
			return &awayError{wait}
		}
	}
	switch websocket.CloseStatus(err) {
	case closeRefused:
		return ErrRefused
	case closeReplaced:
		return ErrReplaced
	case websocket.StatusPolicyViolation:
		return ErrEnded
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// hello returns the message that authenticates with t.
func hello(t Token) []byte {
	b, _ := json.Marshal(map[string]string{"token": t.Value}) // cannot fail for a string
	return b
}

// write sends a message, within answerWait.
func write(ctx context.Context, ws *websocket.Conn, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, data)
}

// cut closes a socket. It is nil if the client's transport did not report it.
func cut(socket net.Conn) {
	if socket != nil {
		_ = socket.Close()
	}
}

// close ends the connection, with a close frame if form is set. It returns when
// all goroutines of the connection have ended.
func (c *connection) close(form bool) {
	if form {
		late := time.AfterFunc(closeWait, func() { cut(c.socket) })
		_ = c.ws.Close(websocket.StatusNormalClosure, "")
		late.Stop()
	}
	c.cancel()
	cut(c.socket)
	_ = c.ws.CloseNow()
	<-c.done
}

// serve sends the messages of the queue, handles the relay's answers and keeps
// the token valid.
func (c *connection) serve(stop context.Context) error {
	var reading sync.WaitGroup
	reading.Go(c.listen)
	reading.Go(c.ping)
	go func() { reading.Wait(); close(c.done) }()
	defer context.AfterFunc(stop, func() {
		linger := time.NewTimer(lingerWait)
		defer linger.Stop()
		select {
		case <-linger.C:
			c.cancel()
		case <-c.ctx.Done():
		}
	})()

	c.renewAt, c.overdue = time.NewTimer(longDelay), time.NewTimer(answerWait)
	defer c.renewAt.Stop()
	defer c.overdue.Stop()
	c.overdue.Stop()
	c.accepted()
	c.queue.rewind()
	c.cfg.Logger.Info("publishing")

	always := make(chan struct{})
	close(always)
	for {
		c.observe(!c.viewer)
		if c.queue.finished() != nil {
			return nil
		}
		var ready chan struct{}
		// Nothing is sent while the relay has not answered a token. If the old
		// token expired meanwhile, the relay would refuse earlier messages and
		// accept later ones, and the order would be lost.
		if !c.viewer && !c.waiting && c.queue.pending() {
			ready = always
		}
		var err error
		select {
		case <-c.ctx.Done():
			err = errLost
		case err = <-c.lost:
			err = c.ended(err)
		case <-c.overdue.C:
			err = fmt.Errorf("%w: the relay did not answer the token", errLost)
		case <-c.told.filled:
			err = c.heed(stop)
		case <-c.renewAt.C:
			if c.renewal == nil && !c.waiting {
				c.renew(stop, c.token)
			}
		case r := <-c.renewal:
			c.renewal = nil
			err = c.show(r)
		case <-c.queue.changed:
		case <-ready:
			if o, ok := c.queue.next(); ok {
				err = c.send(o.data)
			}
		}
		if err != nil {
			return err
		}
	}
}

// ended returns the meaning of the error that ended reading. It notes a refused
// token.
func (c *connection) ended(err error) error {
	if err = meaning(err); errors.Is(err, ErrRefused) {
		c.refused = &c.token
		if c.waiting {
			c.refused = &c.shown
		}
	}
	return err
}

// accepted resets the state after the relay has accepted c.token.
func (c *connection) accepted() {
	c.viewer, c.waiting, c.complaint = false, false, ""
	c.lastAcks, _ = c.queue.counts()
	c.overdue.Stop()
	c.renewAt.Stop()
	if !c.token.RenewAt.IsZero() {
		c.renewIn(time.Until(c.token.RenewAt), renewFloor)
	}
}

// renewIn sets the time of the next refresh: after wait, and not before the
// floor has passed since the last one began.
func (c *connection) renewIn(wait, floor time.Duration) {
	if !c.renewed.IsZero() {
		wait = max(wait, floor-time.Since(c.renewed))
	}
	c.renewAt.Reset(wait)
}

// show sends the token of r on the open connection. If the refresh has failed,
// it sets the time of the next one.
func (c *connection) show(r renewal) error {
	if r.err != nil {
		c.renewIn(c.backOff(), renewFloor)
		if text := r.err.Error(); text != c.complaint {
			c.complaint = text
			c.cfg.Logger.Error("the token could not be refreshed; the device will try again", "error", r.err)
		}
		return nil
	}
	c.shown, c.waiting = r.token, true
	c.overdue.Reset(answerWait)
	return c.send(hello(r.token))
}

// send sends a message. If that fails, it returns the error that ended reading,
// if there is one soon: the relay may just have closed the connection with a
// code.
func (c *connection) send(data []byte) error {
	err := write(c.ctx, c.ws, data)
	if err == nil {
		return nil
	}
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case lost := <-c.lost:
		return c.ended(lost)
	case <-timer.C:
		return fmt.Errorf("%w: %w", errLost, err)
	}
}

// backOff returns how long to wait before the next refresh. The delay doubles.
func (c *connection) backOff() time.Duration {
	c.renewDelay = min(max(2*c.renewDelay, 2*firstDelay), lastDelay)
	return c.renewDelay/2 + mathrand.N(c.renewDelay/2)
}

// heed handles the answers in the inbox.
func (c *connection) heed(stop context.Context) error {
	for _, a := range c.told.take() {
		switch {
		case a.Status == "authenticated" && c.waiting:
			if confirmed, _ := c.queue.counts(); !c.viewer || confirmed > c.lastAcks {
				c.renewDelay = 0
			}
			c.token = c.shown
			if c.viewer {
				c.queue.rewind() // send again what the relay refused meanwhile
			}
			c.accepted()
			c.cfg.Logger.Info("token refreshed")
		case a.Status == "expiring":
			c.renewIn(0, expiringFloor)
		case a.Status == "viewer" && !c.viewer:
			c.viewer = true
			if c.waiting || c.renewal != nil {
				break // a refresh is under way
			}
			var wait time.Duration
			if confirmed, _ := c.queue.counts(); confirmed == c.lastAcks {
				wait = c.backOff() // no message was accepted, and a new token may not help
			}
			c.renewIn(wait, renewFloor)
			c.cfg.Logger.Warn("the relay accepts no messages before the device sends another token: this one is no longer valid, or does not permit to publish in this room", "again_in", wait.Round(time.Millisecond))
		case a.Error == "Invalid message format":
			c.cfg.Logger.Error("the relay refused the form of a message; the message is dropped", "detail", a.Detail)
			c.queue.drop()
		case a.Error != "":
			c.cfg.Logger.Error("the relay reports an error", "error", a.Error) // the relay then closes the connection
		}
	}
	return nil
}

// listen reads the relay's messages: answers to the device, and the frames that
// every viewer gets. Reading also answers pings.
func (c *connection) listen() {
	for {
		_, data, err := c.ws.Read(c.ctx)
		if err != nil {
			c.lost <- err
			return
		}
		switch answer := c.read(data); {
		case answer.Ack != "":
			c.queue.acknowledge(answer.Ack)
		case answer.Status != "" || answer.Error != "":
			if !c.told.put(answer) {
				c.lost <- errors.New("the relay sent more answers than the device can have asked for")
				return
			}
		}
	}
}

// ping sends pings, and cuts the connection if the relay does not answer one.
func (c *connection) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(c.ctx, answerWait)
		err := c.ws.Ping(ctx)
		cancel()
		if err != nil {
			cut(c.socket) // ends reading
			return
		}
	}
}

// answer has the fields of the relay's messages that concern a device.
type answer struct{ Type, Pos, Ack, Error, Status, Detail string }

// endpoint returns the URL of the connection.
func (p *publisher) endpoint() string {
	sep := "?"
	if strings.Contains(p.cfg.URL, "?") {
		sep = "&" // it names a room
	}
	address := p.cfg.URL + sep + "watch=0"
	if p.pos != "" {
		address += "&since=" + url.QueryEscape(p.pos)
	}
	return address
}

// cutText returns the beginning of a text of the relay.
func cutText(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxDetail)], "")
}

// read parses a message and stores its position. If the message is malformed,
// for example because the connection was cut within it, read returns a zero
// answer.
func (p *publisher) read(data []byte) (a answer) {
	if json.Unmarshal(data, &a) != nil {
		return answer{}
	}
	if a.Pos != "" && len(a.Pos) <= maxPos {
		p.pos = a.Pos
	}
	return a
}

// inbox passes answers from listen to serve. It does not make listen wait: the
// relay would then wait for it.
type inbox struct {
	mu     sync.Mutex
	list   []answer
	filled chan struct{}
}

func newInbox() *inbox { return &inbox{filled: make(chan struct{}, 1)} }

// put adds an answer, unless it is the same status as the last one. The relay
// sends the status "viewer" for each message of a device that may not publish.
// It returns false if too many answers wait.
func (i *inbox) put(a answer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	a.Detail, a.Error = cutText(a.Detail), cutText(a.Error)
	if n := len(i.list); a.Status == "" || n == 0 || i.list[n-1] != a {
		i.list = append(i.list, a)
	}
	signal(i.filled)
	return len(i.list) <= maxInbox
}

// take returns all answers and empties the inbox.
func (i *inbox) take() []answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.list
	i.list = nil
	return list
}
