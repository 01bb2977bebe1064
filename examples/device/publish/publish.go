// Package publish is the sending half of the installation: it keeps one
// authenticated connection to a relay open and sends what a Source says over it.
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

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// Waiting times between attempts to connect: doubled from the first to the last,
// each drawn at random from its upper half, so that devices and viewers do not all
// return in the same moment after the server restarted.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second

	// longDelay is for what another attempt does not cure: somebody decided against
	// this device, or another one has its place. Refused tokens approach it in larger
	// steps than two, because the relay blocks addresses that go on showing them.
	longDelay   = 5 * time.Minute
	refusedStep = 8
)

// Bounds on what the relay may take its time for.
const (
	answerWait = 10 * time.Second // the handshake, each write, the answer to a token
	pingEvery  = 30 * time.Second // a link that is dead in both directions is noticed by nothing else
	lingerWait = 3 * time.Second  // acknowledgements, once Run is to end
	closeWait  = time.Second      // the answer to the close frame
)

// Why a connection ended, where it matters for what comes next.
var (
	ErrRefused  = errors.New("publish: the relay refused the token")
	ErrReplaced = errors.New("publish: another session of this device has taken its place: is the same token in use elsewhere?")
	ErrEnded    = errors.New("publish: the relay's operator ended the connection")

	errLost = errors.New("publish: the connection was lost")
)

// Source says what to publish. Next waits until the next message is due, and returns
// when ctx ends. It is called from one goroutine, a little ahead of what is sent.
type Source interface {
	Next(ctx context.Context) (wire.Message, error)
}

// Config says what to publish and where. URL, Tokens and Source are required.
type Config struct {
	URL    string // the relay's endpoint: ws://… or wss://…, without a query
	Tokens Tokens
	Source Source
	Logger *slog.Logger // nil: silence

	// Client makes the connections; nil is http.DefaultClient.
	Client *http.Client
	// Observe is told of every change, from one goroutine at a time. It must not block.
	Observe func(State)
}

// State is how publishing goes.
type State struct {
	Connected      bool // the relay takes messages
	Acknowledged   int  // messages that it has, since the start
	Unacknowledged int  // messages that wait to be sent or acknowledged
}

// Run publishes until ctx or the source ends. In either case it waits until all is
// acknowledged, but not for long where it was told to end.
//
// It connects again whenever the connection is lost, and sends what was not
// acknowledged once more, under the same ids, so that nothing is lost and nothing
// published twice. A token that expires is replaced while the connection stays. A
// refused one is tried again too, since it may be replaced meanwhile.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(State) {}
	}
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
				cfg.Logger.Warn("ended before all was acknowledged", "messages", waiting)
			}
			return ctx.Err()
		case ended != nil:
			return ended
		case confirmed > before:
			delay = firstDelay
		}
		wait := delay/2 + mathrand.N(delay/2)
		var told *unavailableError
		switch {
		case errors.Is(err, ErrReplaced), errors.Is(err, ErrEnded):
			wait = longDelay/2 + mathrand.N(longDelay/2)
		case errors.Is(err, ErrRefused):
			delay = min(refusedStep*delay, longDelay)
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

type publisher struct {
	cfg     Config
	queue   *queue
	pos     string       // where the relay's stream was last seen, so as not to be told it all again
	refused *Token       // shown last and not accepted
	renewal chan renewal // a refresh that is under way, nil if none is
}

// feed takes what the source says for as long as there is room.
func (p *publisher) feed(ctx context.Context) {
	prefix := rand.Text()[:10] // of the ids: another run of the same device uses others
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
			err = errors.New("larger than the relay takes") // and closes the connection for, each time that it is sent
		}
		if err != nil {
			p.cfg.Logger.Error("a message was left out", "bytes", len(data), "error", err)
			continue
		}
		count++
		p.queue.put(outgoing{m.ID, data})
	}
}

func (p *publisher) observe(connected bool) {
	confirmed, waiting := p.queue.counts()
	p.cfg.Observe(State{connected, confirmed, waiting})
}

// renewal is what became of a refresh.
type renewal struct {
	token Token
	err   error
}

// renew begins to replace old, beside the connection and whatever becomes of that:
// an answer that nobody waits for is a pair that is lost.
func (p *publisher) renew(ctx context.Context, old Token) {
	p.renewal = make(chan renewal, 1)
	go func(done chan<- renewal) {
		token, err := p.cfg.Tokens.Refresh(ctx, old)
		done <- renewal{token, err}
	}(p.renewal)
}

// settle waits for a refresh that is under way, and forgets what became of it: the
// Tokens know.
func (p *publisher) settle() {
	if p.renewal != nil {
		<-p.renewal
		p.renewal = nil
	}
}

// token returns what to show on a new connection.
func (p *publisher) token(ctx context.Context) (Token, error) {
	p.settle()
	if p.refused == nil {
		return p.cfg.Tokens.Token(ctx)
	}
	token, err := p.cfg.Tokens.Refresh(ctx, *p.refused)
	if errors.Is(err, ErrNoRefresh) {
		// The refusal may have been the relay's mistake, and be mended there.
		p.cfg.Logger.Error("the token was refused", "error", err)
		return p.cfg.Tokens.Token(ctx)
	}
	return token, err
}
