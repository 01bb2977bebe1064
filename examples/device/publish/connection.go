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
	"strconv"
	"sync"
	"time"

	"nhooyr.io/websocket"
)

// Close codes with a meaning of their own in this protocol.
const (
	closeRefused  websocket.StatusCode = 4401
	closeReplaced websocket.StatusCode = 4409
)

// connection is one authenticated connection. Its fields are those of the goroutine
// that serves it, apart from what says otherwise.
type connection struct {
	*publisher
	ws     *websocket.Conn
	socket net.Conn
	ctx    context.Context // ends with the connection, or a while after it was told to
	cancel context.CancelFunc
	lost   chan error    // what ended reading
	told   *inbox        // filled by the goroutine that reads
	done   chan struct{} // closed when nothing reads any more

	token    Token // that the relay accepted
	shown    Token // that it has not answered yet
	waiting  bool  // for that answer
	viewer   bool  // the relay takes no messages: the right has ended
	lastAcks int   // acknowledgements at the time when it was given

	renewAt    *time.Timer // when the token is to be replaced
	renewDelay time.Duration
	complaint  string      // about that, logged last
	overdue    *time.Timer // when the answer should have come
}

// connection serves one connection until it is lost or nothing is left to say. After
// stop has ended nothing is left to say when all is acknowledged.
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
	// nhooyr cannot be made to give up a peer that stalls, so the socket is kept at hand.
	var socket net.Conn
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { socket = i.Conn }})
	ws, res, err := websocket.Dial(traced, p.cfg.URL+"?since="+p.pos, &websocket.DialOptions{HTTPClient: p.cfg.Client})
	if err != nil {
		return nil, refusal(res, err)
	}
	defer func() {
		if err != nil {
			cut(socket)
			_ = ws.CloseNow()
		}
	}()
	ws.SetReadLimit(-1) // a history frame may be as large as the history
	if err := write(ctx, ws, hello(token)); err != nil {
		return nil, fmt.Errorf("publish: authenticating: %w", err)
	}
	// History and live frames may come before the answer.
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

// unavailableError is the relay's refusal to upgrade.
type unavailableError struct {
	status     int
	retryAfter time.Duration
}

func (e *unavailableError) Error() string {
	return fmt.Sprintf("publish: the relay answers %d %s", e.status, http.StatusText(e.status))
}

func refusal(res *http.Response, err error) error {
	if res == nil || res.StatusCode == http.StatusSwitchingProtocols {
		return fmt.Errorf("publish: connecting: %w", err)
	}
	e := &unavailableError{status: res.StatusCode}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.retryAfter = min(time.Duration(min(seconds, 3600))*time.Second, longDelay)
	}
	return e
}

// meaning is what the end of a connection means.
func meaning(err error) error {
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

func hello(t Token) []byte {
	b, _ := json.Marshal(map[string]string{"token": t.Value}) // a string: cannot fail
	return b
}

func write(ctx context.Context, ws *websocket.Conn, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, data)
}

// cut closes a socket, if the client's transport has let it be seen.
func cut(socket net.Conn) {
	if socket != nil {
		_ = socket.Close()
	}
}

// close ends the connection, in due form if all went well, and returns when nothing
// of it is left.
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

// serve sends what is there to send and does what the relay's answers ask for.
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
	stopping := stop.Done()
	for {
		c.observe(!c.viewer)
		if _, waiting := c.queue.counts(); waiting == 0 && stop.Err() != nil || c.queue.finished() != nil {
			return nil
		}
		var ready chan struct{}
		// While a token is being shown nothing is sent: should the old right have ended
		// meanwhile, what is sent now would be taken and what was sent before refused,
		// and the order be lost.
		if !c.viewer && !c.waiting && c.queue.pending() {
			ready = always
		}
		var err error
		select {
		case <-stopping:
			stopping = nil
		case <-c.ctx.Done():
			err = errLost
		case err = <-c.lost:
			err = c.ended(err)
		case <-c.overdue.C:
			err = fmt.Errorf("%w: the token was not answered", errLost)
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

// ended is what reading ended with, and what follows from it.
func (c *connection) ended(err error) error {
	if err = meaning(err); errors.Is(err, ErrRefused) {
		c.refused = &c.token
		if c.waiting {
			c.refused = &c.shown
		}
	}
	return err
}

// accepted begins a right.
func (c *connection) accepted() {
	c.viewer, c.waiting, c.complaint = false, false, ""
	c.lastAcks, _ = c.queue.counts()
	c.overdue.Stop()
	c.renewAt.Stop()
	if !c.token.RenewAt.IsZero() {
		c.renewAt.Reset(time.Until(c.token.RenewAt))
	}
}

// show offers the relay a token on the open connection.
func (c *connection) show(r renewal) error {
	if r.err != nil {
		wait := c.backOff()
		c.renewAt.Reset(wait)
		if text := r.err.Error(); text != c.complaint {
			c.complaint = text
			c.cfg.Logger.Error("the token could not be refreshed and is tried again from time to time", "error", r.err)
		}
		return nil
	}
	c.shown, c.waiting = r.token, true
	c.overdue.Reset(answerWait)
	return c.send(hello(r.token))
}

// send writes, and where that fails says what the reader knows of the reason: the
// relay may have closed, with a code, in that very moment.
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

func (c *connection) backOff() time.Duration {
	c.renewDelay = min(max(2*c.renewDelay, 2*firstDelay), lastDelay)
	return c.renewDelay/2 + mathrand.N(c.renewDelay/2)
}

// heed does what the relay asked for.
func (c *connection) heed(stop context.Context) error {
	for _, a := range c.told.take() {
		switch {
		case a.Status == "authenticated" && c.waiting:
			if confirmed, _ := c.queue.counts(); !c.viewer || confirmed > c.lastAcks {
				c.renewDelay = 0
			}
			c.token = c.shown
			if c.viewer {
				c.queue.rewind() // what was refused meanwhile
			}
			c.accepted()
			c.cfg.Logger.Info("token refreshed")
		case a.Status == "expiring":
			c.renewAt.Reset(0)
		case a.Status == "viewer" && !c.viewer:
			c.viewer = true
			if c.waiting || c.renewal != nil {
				break // it is on its way
			}
			var wait time.Duration
			if confirmed, _ := c.queue.counts(); confirmed == c.lastAcks {
				wait = c.backOff() // the right was of no use: it may never be
			}
			c.renewAt.Reset(wait)
			c.cfg.Logger.Warn("the relay takes no more messages until it sees another token", "again_in", wait.Round(time.Millisecond))
		case a.Error == "Invalid message format":
			c.cfg.Logger.Error("the relay does not understand a message, which is left out", "detail", a.Detail)
			c.queue.drop()
		case a.Error != "":
			c.cfg.Logger.Error("refused", "error", a.Error) // and closes the connection
		}
	}
	return nil
}

// listen reads what the relay sends, which for a device are answers besides what
// every viewer gets. It answers pings, too.
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
			c.told.put(answer)
		}
	}
}

// ping cuts a connection whose other end has vanished.
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
			cut(c.socket) // which reading notices
			return
		}
	}
}

// answer is what of the relay's messages concerns a device.
type answer struct{ Type, Pos, Ack, Error, Status, Detail string }

// read decodes a message and keeps the position. Of a message that cannot be read,
// such as one whose connection was cut in the middle, nothing is kept.
func (p *publisher) read(data []byte) (a answer) {
	if json.Unmarshal(data, &a) != nil {
		return answer{}
	}
	if a.Pos != "" {
		p.pos = a.Pos
	}
	return a
}

// inbox hands answers over without ever keeping the reader waiting, which the relay
// would wait for in turn.
type inbox struct {
	mu     sync.Mutex
	list   []answer
	filled chan struct{}
}

func newInbox() *inbox { return &inbox{filled: make(chan struct{}, 1)} }

// put adds an answer, unless it repeats the last one: a viewer that goes on
// publishing is told each time.
func (i *inbox) put(a answer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := len(i.list); a.Status == "" || n == 0 || i.list[n-1] != a {
		i.list = append(i.list, a)
	}
	signal(i.filled)
}

func (i *inbox) take() []answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.list
	i.list = nil
	return list
}
