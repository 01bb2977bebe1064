// Package publish is the sending half of the installation: it keeps one
// authenticated connection to a relay open and sends what a Source says over it.
package publish

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	URL    string // the relay's endpoint: ws://… or wss://…
	Token  func() (string, error)
	Source Source
	Logger *slog.Logger // nil: silence
}

// Run publishes until ctx or the source ends. It connects again whenever the
// connection is lost, and sends the message that was under way then once more. A
// refused token is tried again too, since it may be replaced meanwhile.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := publisher{cfg: cfg}
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		sent, err := p.connection(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, new(*sourceError)):
			return errors.Unwrap(err)
		case sent:
			delay = firstDelay
		}
		wait := delay/2 + rand.N(delay/2)
		cfg.Logger.Warn("not connected", "error", err, "again_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

type publisher struct {
	cfg     Config
	pending []byte // encoded, not known to be sent
}

// connection serves one connection and says whether anything was sent over it.
func (p *publisher) connection(ctx context.Context) (sent bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ws, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	defer ws.CloseNow()
	// The relay sends the device all that it sends viewers. Reading it notices a
	// closed connection and answers pings; nothing of it is of use here.
	go func() {
		defer cancel()
		for {
			if _, _, err := ws.Read(ctx); err != nil {
				return
			}
		}
	}()
	p.cfg.Logger.Info("publishing")
	for {
		if p.pending == nil {
			m, err := p.cfg.Source.Next(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return sent, errors.New("publish: the connection was lost")
				}
				return sent, &sourceError{err}
			}
			if p.pending, err = json.Marshal(m); err != nil {
				return sent, &sourceError{err}
			}
		}
		if err := write(ctx, ws, p.pending); err != nil {
			return sent, fmt.Errorf("publish: sending: %w", err)
		}
		p.pending, sent = nil, true
	}
}

// dial connects and authenticates.
func (p *publisher) dial(ctx context.Context) (_ *websocket.Conn, err error) {
	token, err := p.cfg.Token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, p.cfg.URL, nil)
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
		var answer struct{ Status, Error string }
		switch {
		case bytes.HasPrefix(data, []byte(`{"type"`)) || json.Unmarshal(data, &answer) != nil:
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
