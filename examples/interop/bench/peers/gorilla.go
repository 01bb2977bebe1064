package main

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// onGorilla follows gorilla's chat example: each viewer has a queue and two
// goroutines, and gets pings. A viewer with a full queue is dropped. Frames are
// PreparedMessages.
type onGorilla struct {
	upgrader websocket.Upgrader
	hub      *hub[*gorillaViewer, *websocket.PreparedMessage]
	to       []*gorillaViewer
}

type gorillaViewer struct {
	conn *websocket.Conn
	send chan *websocket.PreparedMessage
	gone chan struct{}
}

const (
	pongWait   = 60 * time.Second
	pingPeriod = pongWait * 9 / 10
)

func newGorilla(keep int) *onGorilla {
	return &onGorilla{
		upgrader: websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024},
		hub: newHub[*gorillaViewer](keep, func(text []byte) *websocket.PreparedMessage {
			m, _ := websocket.NewPreparedMessage(websocket.TextMessage, text) // fails for control frames only
			return m
		}),
	}
}

func (p *onGorilla) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := p.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	v := &gorillaViewer{conn, make(chan *websocket.PreparedMessage, 256), make(chan struct{})}
	p.hub.join(v, func(history *websocket.PreparedMessage) { v.send <- history })
	go v.writePump()
	go p.readPump(v)
}

func (p *onGorilla) readPump(v *gorillaViewer) {
	defer func() {
		p.hub.leave(v)
		close(v.gone)
		v.conn.Close()
	}()
	v.conn.SetReadLimit(512)
	_ = v.conn.SetReadDeadline(time.Now().Add(pongWait))
	v.conn.SetPongHandler(func(string) error { return v.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		if _, _, err := v.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (v *gorillaViewer) writePump() {
	ping := time.NewTicker(pingPeriod)
	defer ping.Stop()
	defer v.conn.Close()
	for {
		var err error
		select {
		case m := <-v.send:
			_ = v.conn.SetWriteDeadline(time.Now().Add(writeWait))
			err = v.conn.WritePreparedMessage(m)
		case <-ping.C:
			_ = v.conn.SetWriteDeadline(time.Now().Add(writeWait))
			err = v.conn.WriteMessage(websocket.PingMessage, nil)
		case <-v.gone:
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *onGorilla) publish(message []byte) error {
	var frame *websocket.PreparedMessage
	frame, p.to = p.hub.add(message, p.to)
	for _, v := range p.to {
		select {
		case v.send <- frame:
		default:
			if p.hub.leave(v) {
				v.conn.Close()
			}
		}
	}
	return nil
}
