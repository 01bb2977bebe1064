//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
	"github.com/relayguard/relayguard/examples/internal/mark"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// messages publishes, or waits while the server publishes by itself.
type messages interface {
	publish(ctx context.Context, p plan, sent func()) (published, error)
	close()
}

// publisher returns the messages that the flags ask for.
func (l *load) publisher(ctx context.Context) (messages, error) {
	switch {
	case l.cfg.publish:
		return newPublisher(ctx, l.to[0], l.cfg.token)
	case l.cfg.start != "":
		return triggered(l.cfg.start), nil
	}
	return elsewhere(l.cfg.duration), nil
}

// triggered is a server that publishes when its URL gets a POST.
type triggered string

func (t triggered) close() {}
func (t triggered) publish(ctx context.Context, p plan, sent func()) (published, error) {
	return trigger(ctx, string(t), p)
}

// elsewhere is a server that publishes unasked. It only waits for the given
// time.
type elsewhere time.Duration

func (e elsewhere) close() {}
func (e elsewhere) publish(ctx context.Context, _ plan, _ func()) (published, error) {
	return published{}, pause(ctx, time.Duration(e))
}

// published is the result of publishing.
type published struct {
	count int64
	held  float64       // messages a second
	late  time.Duration // the longest delay of a message
}

// plan describes the messages to publish.
type plan struct {
	run   string
	first int64
	count int64
	rate  float64
	size  int
}

// publisher is the authenticated connection that publishes.
type publisher struct {
	conn net.Conn

	mu       sync.Mutex
	acked    int64
	changed  chan struct{} // closed and made anew after each change
	welcomed bool
	failed   error
	buf      []byte
	big      bool
}

// newPublisher connects, sends the token and waits until it is accepted.
func newPublisher(ctx context.Context, to target, token string) (*publisher, error) {
	conn, err := dial(ctx, to, nil, false)
	if err != nil {
		return nil, fmt.Errorf("the publisher cannot connect: %w", err)
	}
	p := &publisher{conn: conn, changed: make(chan struct{})}
	go func() {
		err := readFrames(io.MultiReader(strings.NewReader(string(conn.rest)), conn), p)
		p.set(func() {
			if p.failed == nil {
				p.failed = fmt.Errorf("the publisher's connection ended: %w", err)
			}
		})
	}()
	hello, err := json.Marshal(map[string]string{"token": token})
	if err == nil {
		err = p.write(hello)
	}
	if err == nil {
		err = p.wait(ctx, dialWait, func() bool { return p.welcomed })
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *publisher) close() { p.conn.Close() }

// set calls f with p locked, and wakes the callers of wait.
func (p *publisher) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait waits until done returns true. It returns an error if the connection
// fails, if ctx ends, or after atMost.
func (p *publisher) wait(ctx context.Context, atMost time.Duration, done func() bool) error {
	timeout := time.NewTimer(atMost)
	defer timeout.Stop()
	for {
		p.mu.Lock()
		ok, failed, changed := done(), p.failed, p.changed
		p.mu.Unlock()
		switch {
		case ok:
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return fmt.Errorf("the server did not answer the publisher within %v", atMost)
		}
	}
}

// maxAnswer is longer than any answer to a publisher, in bytes. A longer
// message belongs to the stream, which the publisher receives like any viewer.
const maxAnswer = 4096

// data implements sink.
func (p *publisher) data(piece []byte, last bool) error {
	if !p.big {
		p.buf = append(p.buf, piece...)
		p.big = len(p.buf) > maxAnswer
	}
	if !last {
		return nil
	}
	b, big := p.buf, p.big
	p.buf, p.big = p.buf[:0], false
	var answer struct {
		Ack, Error, Status, Detail string
	}
	if big || json.Unmarshal(b, &answer) != nil {
		return nil
	}
	p.set(func() {
		switch {
		case answer.Status == "authenticated":
			p.welcomed = true
		case answer.Error == "Authentication failed":
			p.failed = errors.New("the server refused the token: make one with the server's JWT_SECRET (`server token`)")
		case answer.Error != "":
			p.failed = fmt.Errorf("the server refused a message: %s %s", answer.Error, answer.Detail)
		case answer.Status == "viewer":
			p.failed = errors.New("the publisher's token expired or was revoked during the run: make a token that is valid for longer")
		case answer.Ack != "":
			p.acked++
		}
	})
	return nil
}

// control implements sink.
func (p *publisher) control(op byte, payload []byte) error {
	switch op {
	case opPing:
		return p.send(opPong, payload)
	case opClose:
		return fmt.Errorf("the server closed it with the code %d", closeCode(payload))
	}
	return nil
}

func (p *publisher) write(message []byte) error { return p.send(opText, message) }

// send sends a frame. Each needs a deadline of its own: that of the one before
// may have passed.
func (p *publisher) send(op byte, payload []byte) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(dialWait)); err != nil {
		return err
	}
	_, err := p.conn.Write(clientFrame(op, payload))
	return err
}

// publish sends each message when it is due, and calls sent after each. Then it
// waits until the server has stored all of them.
func (p *publisher) publish(ctx context.Context, pl plan, sent func()) (done published, err error) {
	p.mu.Lock()
	before := p.acked
	p.mu.Unlock()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := range pl.count {
		due := start.Add(time.Duration(float64(n) / pl.rate * float64(time.Second)))
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return done, ctx.Err()
		}
		now := time.Now()
		done.late = max(done.late, now.Sub(due))
		data, err := json.Marshal(wire.Message{
			Text: string(mark.Append(nil, pl.run, pl.first+n, now, pl.size)),
			ID:   pl.run + "-" + strconv.FormatInt(pl.first+n, 10),
		})
		if err == nil {
			err = p.write(data)
		}
		if err != nil {
			return done, fmt.Errorf("publishing message %d: %w", pl.first+n, err)
		}
		done.count++
		sent()
	}
	done.held = heldRate(done.count, pl.rate, time.Since(start))
	err = p.wait(ctx, dialWait, func() bool { return p.acked-before >= done.count })
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		err = fmt.Errorf("%d of %d messages were stored: %w", p.acked-before, done.count, err)
	}
	return done, err
}

// heldRate returns the rate of count messages, where took is the time from the
// first to the last. That time is one interval short, so heldRate adds one.
func heldRate(count int64, rate float64, took time.Duration) float64 {
	return float64(count) / (took.Seconds() + 1/rate)
}

// trigger asks a server to publish by itself, and returns when the server has
// published.
func trigger(ctx context.Context, start string, pl plan) (published, error) {
	u, err := url.Parse(start)
	if err != nil {
		return published{}, err
	}
	q := u.Query()
	q.Set("run", pl.run)
	q.Set("first", strconv.FormatInt(pl.first, 10))
	q.Set("count", strconv.FormatInt(pl.count, 10))
	q.Set("rate", strconv.FormatFloat(pl.rate, 'g', -1, 64))
	q.Set("size", strconv.Itoa(pl.size))
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return published{}, err
	}
	res, err := client.New(nil).Do(req)
	if err != nil {
		return published{}, fmt.Errorf("-start: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	var answer struct {
		Published int64
		Seconds   float64
	}
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		return published{}, fmt.Errorf("-start: %w", err)
	}
	took := time.Duration(answer.Seconds * float64(time.Second))
	return published{count: answer.Published, held: heldRate(answer.Published, pl.rate, took)}, nil
}
