package main

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

const channel = "stream"

// onCentrifuge subscribes every viewer to one channel when it connects. The
// library itself delivers the channel's history with its answer, to who asks
// for all since the beginning, and what follows after it:
//
//	{"id":1,"connect":{"subs":{"stream":{"recover":true}}}}
//
// Once the beginning is no longer kept there is nothing to recover, so each
// measurement starts a server of its own.
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
			// The load generator answers WebSocket pings, not those of this
			// protocol.
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
