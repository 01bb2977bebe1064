package redislimit_test

import (
	"errors"
	"log"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/redislimit"
)

// One node of several. All of them have the same engine, limits and key.
func Example() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	shared, err := redislimit.New(redislimit.Config{
		Client: client, Key: []byte(os.Getenv("LIMIT_KEY")), // 32 random bytes
		OnState: func(err error) { log.Print("limits: ", err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shared.Close() // frees the connections of this node
	limiter, err := ratelimit.New(ratelimit.Config{
		Shared: shared,
		OnShared: func(c ratelimit.SharedChange) {
			if c.Kind == ratelimit.SharedBlock {
				log.Print("end the open connections of ", c.Network)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = limiter.Block(netip.MustParsePrefix("192.0.2.0/24"), time.Time{})
	if errors.Is(err, ratelimit.ErrLocal) {
		log.Print("the other nodes will know later: ", err)
	}
	http.Handle("/ws", limiter.Handler(http.NotFoundHandler()))
	log.Fatal(http.ListenAndServe("localhost:3000", nil))
}
