// Package publish sends the messages of a [Source] to a relay. It keeps one
// authenticated connection open, and loses no message when the connection is
// lost.
package publish

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
	"github.com/relayguard/relayguard/examples/internal/thinlog"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// The delay between attempts to connect doubles from firstDelay to lastDelay.
// The wait is random, between half the delay and the delay, so that devices do
// not all return at the same moment after a restart of the relay.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second

	// longDelay is the delay if another attempt will not help: the operator
	// ended the connection, or another session replaced this one. After a
	// refused token the delay grows by refusedStep, up to longDelay, because
	// the relay blocks an address that sends refused tokens again and again.
	longDelay   = 5 * time.Minute
	refusedStep = 8
)

// The least time between two refreshes. A part of a lifetime can be a moment: a
// token that is issued in the last second of its pair expires with the pair.
// The status "expiring" comes from the relay, and may come at any time.
const (
	renewFloor    = 500 * time.Millisecond
	expiringFloor = 30 * time.Second
)

// Limits of what a relay can make the device read and keep.
const (
	// maxRead is the largest message that is read, in bytes. A relay that does
	// not know "watch=0" sends frames of history with up to 64 KiB of messages,
	// or one larger message, and the prompt, the status and the memory.
	maxRead   = 1 << 20
	maxInbox  = window + 64 // answers that wait: one for each message, and some more
	maxPos    = 256         // bytes of a position
	maxDetail = 200         // bytes of a text of the relay in a log line
)

// Limits of time.
const (
	answerWait = 10 * time.Second // for the handshake, each write, the answer to a token
	pingEvery  = 30 * time.Second // only a ping detects a link that is dead in both directions
	lingerWait = 10 * time.Second // for acknowledgements, when Run has to end
	closeWait  = time.Second      // for the answer to the close frame
)

// Why the relay ended a connection.
var (
	ErrRefused  = errors.New("publish: the relay refused the token")
	ErrReplaced = errors.New("publish: another session of this device replaced this one: check whether its token is used elsewhere")
	ErrEnded    = errors.New("publish: the relay's operator ended the connection")

	errLost = errors.New("publish: the connection was lost")
)

// Source makes the messages to publish. Next waits until the next message is
// due, and returns when ctx ends. One goroutine calls it, up to 256 messages
// ahead of the acknowledgements.
type Source interface {
	Next(ctx context.Context) (wire.Message, error)
}

// Config configures Run. URL, Tokens and Source are required.
type Config struct {
	URL    string // the relay's endpoint: ws://… or wss://…; its only query can be room=NAME
	Tokens Tokens
	Source Source
	// Logger gets at most ten lines with the same message in a minute, because
	// the relay causes them. If nil, nothing is logged.
	Logger *slog.Logger

	// Client makes the connections. It follows no redirect to another scheme,
	// host or port. If nil, the transport is http.DefaultTransport.
	Client *http.Client
	// Observe, if not nil, is called after every change, by one goroutine at a
	// time. It must not block.
	Observe func(State)
}

// State is the state of a Run.
type State struct {
	Connected      bool // the relay accepts messages
	Acknowledged   int  // messages that the relay has acknowledged since the start
	Unacknowledged int  // messages that are not sent or not acknowledged
}

// Run publishes the messages of the source until the source or ctx ends. If the
// source ends, Run waits until all messages are acknowledged and returns the
// error of the source. If ctx ends, it waits for ten seconds at most and
// returns the error of ctx.
//
// The connection asks for no history and no live frames ("watch=0"): a device
// that does not read them fast enough would be cut off by its own messages.
//
// If the connection is lost, Run connects again and sends the messages that are
// not acknowledged again, with the same ids. So no message is lost or published
// twice. Run replaces a token before it expires, on the open connection. After
// a refused token it tries again, because the operator may have replaced the
// token.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(State) {}
	}
	cfg.Client = client.New(cfg.Client)
	var flush func()
	cfg.Logger, flush = thinlog.New(cfg.Logger)
	defer flush()
	p := &publisher{cfg: cfg, queue: newQueue()}
	feed, stopFeeding := context.WithCancel(ctx)
	fed := make(chan struct{})
	go func() { defer close(fed); p.feed(feed) }()
	defer func() { stopFeeding(); <-fed; p.settle() }()

	for delay := firstDelay; ; {
		before, _ := p.queue.counts()
		err := p.connection(ctx)
		confirmed, waiting := p.queue.counts()
		switch ended := p.queue.finished(); {
		case ctx.Err() != nil:
			if waiting > 0 {
				cfg.Logger.Warn("ended before all messages were acknowledged", "messages", waiting)
			}
			return ctx.Err()
		case ended != nil:
			return ended
		case confirmed > before:
			delay = firstDelay
		}
		wait := delay/2 + mathrand.N(delay/2)
		var told *unavailableError
		var away *awayError
		switch {
		case errors.Is(err, ErrReplaced), errors.Is(err, ErrEnded):
			wait = longDelay/2 + mathrand.N(longDelay/2)
		case errors.Is(err, ErrRefused):
			delay = min(refusedStep*delay, longDelay)
		case errors.As(err, &away):
			wait = away.comeBack + mathrand.N(time.Second) // others have the same number
		default:
			delay = min(2*delay, max(lastDelay, delay))
			if errors.As(err, &told) {
				wait = max(wait, told.retryAfter)
			}
		}
		cfg.Logger.Warn("not connected", "error", err, "again_in", wait.Round(time.Millisecond))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// maxMessage is the relay's limit for one message, in bytes.
const maxMessage = 64 << 10

// publisher is the state of a Run across connections.
type publisher struct {
	cfg     Config
	queue   *queue
	pos     string       // the last position of a relay that does not know "watch=0"
	refused *Token       // the last token, if it was refused
	renewed time.Time    // when the last refresh on an open connection began
	renewal chan renewal // the result of a refresh that is under way, or nil
}

// feed puts the messages of the source into the queue, while there is room. It
// marks the end of the queue, also when ctx has ended: until then, the source
// may give one more message, which must not be lost.
func (p *publisher) feed(ctx context.Context) {
	defer func() {
		if ctx.Err() != nil {
			p.queue.end(ctx.Err())
		}
	}()
	prefix := rand.Text()[:10] // makes the ids differ from those of another run
	for count := 0; ; {
		for p.queue.full() {
			select {
			case <-ctx.Done():
				return
			case <-p.queue.room:
			}
		}
		m, err := p.cfg.Source.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.queue.end(err)
			}
			return
		}
		m.ID = prefix + "-" + strconv.Itoa(count)
		data, err := json.Marshal(m)
		if err == nil && len(data) > maxMessage {
			err = errors.New("larger than the relay accepts") // the relay would close the connection each time
		}
		if err != nil {
			p.cfg.Logger.Error("a message is not published", "bytes", len(data), "error", err)
			continue
		}
		count++
		p.queue.put(outgoing{m.ID, data})
	}
}

// observe calls Config.Observe.
func (p *publisher) observe(connected bool) {
	confirmed, waiting := p.queue.counts()
	p.cfg.Observe(State{connected, confirmed, waiting})
}

// renewal is the result of a refresh.
type renewal struct {
	token Token
	err   error
}

// renew begins to refresh old, in a goroutine that goes on if the connection
// ends. Otherwise the answer, and with it the new pair, could be lost.
func (p *publisher) renew(ctx context.Context, old Token) {
	p.renewed = time.Now()
	p.renewal = make(chan renewal, 1)
	go func(done chan<- renewal) {
		token, err := p.cfg.Tokens.Refresh(ctx, old)
		done <- renewal{token, err}
	}(p.renewal)
}

// settle waits for a refresh that is under way. It ignores the result, because
// the Tokens have it.
func (p *publisher) settle() {
	if p.renewal != nil {
		<-p.renewal
		p.renewal = nil
	}
}

// token returns the token for a new connection.
func (p *publisher) token(ctx context.Context) (Token, error) {
	p.settle()
	if p.refused == nil {
		return p.cfg.Tokens.Token(ctx)
	}
	token, err := p.cfg.Tokens.Refresh(ctx, *p.refused)
	if errors.Is(err, ErrNoRefresh) {
		// The relay may have refused a valid token by a mistake that the
		// operator then fixes.
		p.cfg.Logger.Error("the token was refused", "error", err)
		return p.cfg.Tokens.Token(ctx)
	}
	return token, err
}
