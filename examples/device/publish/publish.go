// Package publish is the sending half of the installation: it keeps one
// authenticated connection to a relay open and sends what a Source says over it.
package publish

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"nhooyr.io/websocket"
)

// Waiting times between attempts to connect: doubled from the first to the last,
// each drawn at random from the half below it, so that devices and viewers do not
// all return in the same moment after the server restarted.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 30 * time.Second
)

// answerWait bounds the handshake, and each write.
const answerWait = 10 * time.Second

// ErrRefused means that the relay did not accept the token.
var ErrRefused = errors.New("publish: the relay refused the token")

// Source says what to publish. Next waits until the next message is due.
type Source interface {
	Next(ctx context.Context) (wire.Message, error)
}

// Config says what to publish and where. URL, Token and Source are required.
type Config struct {
	URL    string // the relay's endpoint: ws://… or wss://…, without a query
	Token  func() (string, error)
	Source Source
	Logger *slog.Logger // nil: silence
}

// Run publishes until ctx or the source ends, and in the latter case until all is
// acknowledged. It connects again whenever the connection is lost, and sends what
// was not acknowledged once more, under the same ids, so that nothing is lost and
// nothing published twice. A refused token is tried again too, since it may be
// replaced meanwhile.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := publisher{cfg: cfg, prefix: rand.Text()[:10], acked: make(chan struct{}, 1)}
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		before := p.acks()
		err := p.connection(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case p.ended != nil && len(p.pending()) == 0:
			return p.ended
		case p.acks() > before:
			delay = firstDelay
		}
		wait := delay/2 + mathrand.N(delay/2)
		cfg.Logger.Warn("not connected", "error", err, "again_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// maxMessage is the relay's limit for one message, in bytes.
const maxMessage = 64 << 10

// window is how many messages may wait for their acknowledgement. It is well below
// the thousand ids that the relay remembers.
const window = 256

type publisher struct {
	cfg    Config
	prefix string // of the ids: another run of the same device uses others
	count  int    // messages taken from the source
	ended  error  // what the source ended with
	acked  chan struct{}
	pos    string // where the relay's stream was last seen, so as not to be told it all again

	mu        sync.Mutex
	unacked   []outgoing
	confirmed int
}

type outgoing struct {
	id   string
	data []byte
}

func (p *publisher) pending() []outgoing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.unacked)
}

func (p *publisher) acks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.confirmed
}

func (p *publisher) acknowledge(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.unacked {
		if o.id == id {
			p.unacked = slices.Delete(p.unacked, i, i+1)
			p.confirmed++
			select {
			case p.acked <- struct{}{}:
			default:
			}
			return
		}
	}
}

// connection serves one connection until it is lost or nothing is left to say.
func (p *publisher) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ws, err := p.dial(ctx)
	if err != nil {
		return err
	}
	reading := make(chan struct{})
	defer func() { ws.CloseNow(); <-reading }()
	go func() {
		defer close(reading)
		defer cancel()
		p.listen(ctx, ws)
	}()
	p.cfg.Logger.Info("publishing")
	for _, o := range p.pending() {
		if err := write(ctx, ws, o.data); err != nil {
			return fmt.Errorf("publish: sending again: %w", err)
		}
	}
	for {
		o, err := p.take(ctx)
		if err != nil {
			return err
		}
		if err := write(ctx, ws, o.data); err != nil {
			return fmt.Errorf("publish: sending: %w", err)
		}
	}
}

// listen reads what the relay sends, which for a device are acknowledgements
// besides what every viewer gets. It answers pings, too.
func (p *publisher) listen(ctx context.Context, ws *websocket.Conn) {
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		answer := p.read(data)
		switch {
		case answer.Ack != "":
			p.acknowledge(answer.Ack)
		case answer.Error != "":
			p.cfg.Logger.Error("refused", "error", answer.Error, "detail", answer.Detail)
		case answer.Status == "viewer":
			return // the right has ended: connect again, with another token
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

// take waits for room and for the next message, and remembers it until it is
// acknowledged. At the source's end it waits for that.
func (p *publisher) take(ctx context.Context) (outgoing, error) {
	for {
		waiting := len(p.pending())
		if p.ended != nil && waiting == 0 {
			return outgoing{}, p.ended
		}
		if p.ended == nil && waiting < window {
			break
		}
		select {
		case <-ctx.Done():
			return outgoing{}, errLost
		case <-p.acked:
		}
	}
	m, err := p.cfg.Source.Next(ctx)
	if ctx.Err() != nil && err != nil {
		return outgoing{}, errLost
	}
	if err == nil {
		m.ID = p.prefix + "-" + strconv.Itoa(p.count)
		var o outgoing
		if o.data, err = json.Marshal(m); err == nil && len(o.data) > maxMessage {
			// The relay would close the connection, now and each time that it is sent again.
			p.cfg.Logger.Error("a message is too large and was left out", "bytes", len(o.data))
			return p.take(ctx)
		}
		if err == nil {
			o.id = m.ID
			p.count++
			p.mu.Lock()
			p.unacked = append(p.unacked, o)
			p.mu.Unlock()
			return o, nil
		}
	}
	p.ended = err
	return p.take(ctx)
}

var errLost = errors.New("publish: the connection was lost")

// dial connects and authenticates.
func (p *publisher) dial(ctx context.Context) (_ *websocket.Conn, err error) {
	token, err := p.cfg.Token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, p.cfg.URL+"?since="+p.pos, nil)
	if err != nil {
		return nil, fmt.Errorf("publish: connecting: %w", err)
	}
	defer func() {
		if err != nil {
			ws.CloseNow()
		}
	}()
	ws.SetReadLimit(-1) // a history frame may be as large as the history
	hello, err := json.Marshal(map[string]string{"token": token})
	if err != nil {
		return nil, err
	}
	if err := write(ctx, ws, hello); err != nil {
		return nil, fmt.Errorf("publish: authenticating: %w", err)
	}
	// History and live frames may come before the answer.
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("publish: authenticating: %w", err)
		}
		switch answer := p.read(data); {
		case answer.Error != "":
			return nil, ErrRefused
		case answer.Status == "authenticated":
			return ws, nil
		}
	}
}

func write(ctx context.Context, ws *websocket.Conn, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, data)
}
