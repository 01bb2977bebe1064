package main

import (
	"net/http"

	"github.com/olahol/melody"
)

// onMelody uses Broadcast, as melody's README does. A session is registered
// before HandleConnect is called, so a viewer that connects during a
// publication may get a message twice. The measurements publish only after all
// viewers have connected.
type onMelody struct {
	m   *melody.Melody
	hub *hub[*melody.Session, []byte]
}

func newMelody(keep int) *onMelody {
	p := &onMelody{m: melody.New(), hub: newHub[*melody.Session](keep, func(text []byte) []byte { return text })}
	p.m.HandleConnect(func(s *melody.Session) {
		p.hub.join(s, func(history []byte) { _ = s.Write(history) })
		p.hub.leave(s) // melody keeps a list of its sessions itself
	})
	return p
}

func (p *onMelody) ServeHTTP(w http.ResponseWriter, r *http.Request) { _ = p.m.HandleRequest(w, r) }

func (p *onMelody) publish(message []byte) error {
	frame, _ := p.hub.add(message, nil)
	return p.m.Broadcast(frame)
}
