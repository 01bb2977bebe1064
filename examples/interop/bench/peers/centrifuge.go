package main

import (
	"context"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

const channel = "stream"

// onCentrifuge subscribes every viewer to one channel when it connects, and lets the library itself deliver the channel's
// history with the answer and what follows after it. A viewer first sends {"id":1,"connect":{}}.
type onCentrifuge struct {
	http.Handler
	node *centrifuge.Node
	keep int
}

func newCentrifuge(keep int) (peer, error) {
	node, err := centrifuge.New(centrifuge.Config{
		LogLevel:                    centrifuge.LogLevelError,
		LogHandler:                  func(centrifuge.LogEntry) {},
		RecoveryMaxPublicationLimit: keep, // the default is below the thousand of the relay
	})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		now, err := node.History(channel)
		if err != nil {
			return centrifuge.ConnectReply{}, err
		}
		return centrifuge.ConnectReply{
			Credentials: &centrifuge.Credentials{},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {
				EnableRecovery: true,
				RecoverSince:   &centrifuge.StreamPosition{Epoch: now.Epoch},
			}},
			// The load generator answers WebSocket pings, not those of this protocol.
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
