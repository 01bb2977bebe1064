package main

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

const channel = "stream"

// onCentrifuge subscribes every viewer to one channel when it connects. A
// viewer that asks to recover from the beginning gets the channel's history
// with the library's answer, and later messages after it:
//
//	{"id":1,"connect":{"subs":{"stream":{"recover":true}}}}
//
// If the beginning of the history is no longer kept, the library recovers
// nothing. So each measurement starts a new server.
type onCentrifuge struct {
	http.Handler
	node *centrifuge.Node
	keep int
}

func newCentrifuge(keep int) (peer, error) {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel:   centrifuge.LogLevelError,
		LogHandler: func(e centrifuge.LogEntry) { log.Print(e.Message, e.Fields) },
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {EnableRecovery: true}},
			// The load generator answers WebSocket pings, but not this
			// protocol's own.
			PingPongConfig: &centrifuge.PingPongConfig{PingInterval: 25 * time.Second, PongTimeout: -1},
		}, nil
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return &onCentrifuge{centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}), node, keep}, nil
}

func (p *onCentrifuge) publish(message []byte) error {
	_, err := p.node.Publish(channel, message, centrifuge.WithHistory(p.keep, time.Hour))
	return err
}
