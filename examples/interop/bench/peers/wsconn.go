package main

import (
	"context"
	"net/http"

	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// ours is the relay's transport without the rest of the relay: no sessions,
// limits or cursors. A viewer is parked, or has a goroutine in Read.
type ours struct {
	up    *wsconn.Upgrader
	parks bool
	hub   *hub[*wsconn.Conn, *wsconn.Frame]
	to    []*wsconn.Conn
}

func newOurs(parks bool) func(int) (peer, error) {
	return func(keep int) (peer, error) {
		up, err := wsconn.New(wsconn.Config{})
		return &ours{up: up, parks: parks, hub: newHub[*wsconn.Conn](keep, wsconn.NewFrame)}, err
	}
}

func (p *ours) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := p.up.Accept(w, r)
	if err != nil {
		return
	}
	p.hub.join(conn, func(f *wsconn.Frame) { _ = conn.WriteFrame(f) })
	if !p.parks || !conn.Park(func() { p.read(conn) }) {
		go p.read(conn) // so that net/http can release the request
	}
}

func (p *ours) read(conn *wsconn.Conn) {
	for {
		if _, err := conn.Read(context.Background()); err != nil {
			p.hub.leave(conn)
			_ = conn.Close(1000, "")
			return
		}
		if p.parks && conn.Park(func() { p.read(conn) }) {
			return
		}
	}
}

func (p *ours) publish(message []byte) error {
	var frame *wsconn.Frame
	frame, p.to = p.hub.add(message, p.to)
	for _, conn := range p.to {
		_ = conn.WriteFrame(frame)
	}
	return nil
}
