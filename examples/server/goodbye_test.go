package main

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/client"
	"github.com/relayguard/relayguard/examples/server/config"
)

// A server that stops tells each client when it may come back: a device first,
// and viewers at half the speed at which the server admits them.
func TestGoodbye(t *testing.T) {
	t.Parallel()
	// With the device as many as UPGRADES_PER_SECOND admits at once.
	const viewers, perSecond = 39, 10
	s := start(t, func(c *config.Config) {
		c.RateConnections, c.UpgradesPerSecond = 1000, 2*perSecond
	})
	join := func(query string) *peer {
		t.Helper()
		p, res := connectTo(t, "ws://"+s.addr+"/ws"+query)
		if p == nil {
			t.Fatal(res.Status)
		}
		return p
	}
	peers := []*peer{join("?watch=0")}
	for range viewers {
		peers = append(peers, join(""))
	}
	waits := make([]time.Duration, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { waits[i] = p.goodbye(fmt.Sprint("client ", i)) })
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if waits[0] != time.Second {
		t.Errorf("the device may come back after %v", waits[0])
	}
	in := map[time.Duration]int{}
	for _, wait := range waits[1:] {
		in[wait]++
	}
	for at, n := range in {
		if at < 2*time.Second || at > 6*time.Second || n > perSecond+1 {
			t.Errorf("%d viewers may come back after %v", n, at)
		}
	}
	if len(in) < viewers/perSecond {
		t.Errorf("the viewers come back in %d seconds only: %v", len(in), in)
	}
}

// goodbye reads until the server says that it goes, and returns how long the
// client may stay away. name is in the errors.
func (p *peer) goodbye(name string) time.Duration {
	for {
		_, err := p.next()
		if err == nil {
			continue
		}
		end, _ := errors.AsType[websocket.CloseError](err)
		wait, ok := client.ComeBack(end.Reason, time.Hour)
		if end.Code != websocket.StatusGoingAway || !ok {
			p.t.Errorf("%s: %v", name, err)
		}
		return wait
	}
}
