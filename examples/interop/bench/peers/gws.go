package main

import (
	"net/http"

	"github.com/lxzan/gws"
)

// onGWS uses a Broadcaster, as gws's README recommends. Each connection has an
// asynchronous queue, and the history is put into it before any message.
type onGWS struct {
	gws.BuiltinEventHandler
	upgrader *gws.Upgrader
	hub      *hub[*gws.Conn, []byte]
	to       []*gws.Conn
}

func newGWS(keep int) *onGWS {
	p := &onGWS{hub: newHub[*gws.Conn](keep, func(text []byte) []byte { return text })}
	p.upgrader = gws.NewUpgrader(p, nil)
	return p
}

func (p *onGWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	socket, err := p.upgrader.Upgrade(w, r)
	if err != nil {
		return
	}
	go socket.ReadLoop() // so that net/http can release the request
}

func (p *onGWS) OnOpen(socket *gws.Conn) {
	p.hub.join(socket, func(history []byte) { socket.WriteAsync(gws.OpcodeText, history, nil) })
}

func (p *onGWS) OnClose(socket *gws.Conn, _ error) { p.hub.leave(socket) }

func (p *onGWS) publish(message []byte) error {
	var frame []byte
	frame, p.to = p.hub.add(message, p.to)
	b := gws.NewBroadcaster(gws.OpcodeText, frame)
	defer b.Close()
	for _, socket := range p.to {
		_ = b.Broadcast(socket)
	}
	return nil
}
