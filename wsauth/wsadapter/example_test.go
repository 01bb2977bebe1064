package wsadapter_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http/httptest"
	"time"

	"github.com/relayguard/relayguard/wsauth/wsadapter"
)

func ExampleNew() {
	_, err := wsadapter.New(wsadapter.Config{CloseGrace: -time.Second, ReadLimit: -1})
	fmt.Println(err)
	// Output:
	// wsadapter: Config.CloseGrace must not be negative
	// wsadapter: Config.ReadLimit must not be negative
}

// The library must upgrade the ResponseWriter of Wrap. Otherwise, nothing could
// bound the connection, so the Conn is closed.
func ExampleGorilla_incorrect() {
	adapter, err := wsadapter.New(wsadapter.Config{})
	if err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	rw := adapter.Wrap(w)
	ws := upgradeOther(w) // wrong: upgrader.Upgrade(w, r, nil); correct: upgrader.Upgrade(rw, r, nil)
	conn := wsadapter.Gorilla(ws, rw)
	_, err = conn.Read(context.Background())
	fmt.Println(err)
	// Output: wsadapter: pass the ResponseWriter of Adapter.Wrap to the library's upgrade
}

func upgradeOther(*httptest.ResponseRecorder) gorilla {
	ours, _ := net.Pipe()
	return gorilla{&library{Conn: ours}}
}
