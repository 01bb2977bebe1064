package proxies_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// TestReload reloads a proxy while a viewer is connected through it. The proxy
// ends the connection; nginx does so because of worker_shutdown_timeout,
// without which an old worker lives as long as its viewers. The viewer resumes
// at its position, and in the end it has exactly the published messages.
func TestReload(t *testing.T) {
	var server *relay.Server
	upstream := func(t *testing.T, host string) string {
		server = relay.New(t, "HOST="+host)
		server.Start()
		return server.Addr
	}
	each(t, upstream, func(t *testing.T, p proxy) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*relay.Patience)
		defer cancel()
		device, _, err := websocket.Dial(ctx, "ws://"+site+"/ws", &websocket.DialOptions{HTTPClient: server.Client()}) // not through the proxy
		if err != nil {
			t.Fatal(err)
		}
		defer device.CloseNow()
		write := func(text string) {
			t.Helper()
			if err := device.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		write(`{"token":"` + server.Token() + `"}`)
		hears(t, device, `"authenticated"`)

		v := &resuming{p: p, caughtUp: make(chan int, 1)}
		watching, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- v.watch(watching) }()
		defer func() { stop(); <-ended }()

		published := 0
		publish := func(n int) {
			t.Helper()
			for range n {
				published++
				write(`{"text":"` + strconv.Itoa(published) + `"}`)
			}
		}
		await := func(what string, done func() bool) {
			t.Helper()
			for !done() {
				select {
				case <-v.caughtUp:
				case err := <-ended:
					ended <- err
					t.Fatalf("%s: the viewer ended: %v", what, err)
				case <-ctx.Done():
					t.Fatalf("%s: the viewer has %d of %d messages after %d connections", what, v.n.Load(), published, v.connections.Load())
				}
			}
		}
		publish(50)
		await("before", func() bool { return int(v.n.Load()) == published })
		p.reload(t)
		// Messages are published until the viewer has reconnected, and after
		// that.
		await("cut", func() bool { publish(1); return v.connections.Load() > 1 })
		publish(50)
		await("after", func() bool { return int(v.n.Load()) >= published })
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the viewer ended with %v", err)
		}
		ended <- nil

		want := make([]string, published)
		for i := range want {
			want[i] = strconv.Itoa(i + 1)
		}
		if !slices.Equal(v.texts, want) {
			t.Errorf("the viewer has %q, want 1 to %d", v.texts, published)
		}
		if v.histories > 1 {
			t.Errorf("%d history frames: it did not resume", v.histories)
		}
	})
}

// resuming is a viewer that reconnects with its position when its connection
// ends.
type resuming struct {
	p           proxy
	n           atomic.Int64 // len(texts)
	connections atomic.Int64 // how many were opened
	caughtUp    chan int     // gets a value after each change
	texts       []string     // may be read after watch has returned
	histories   int
}

func (v *resuming) watch(ctx context.Context) error {
	client := &http.Client{Transport: v.p.transport("127.0.0.9", false)}
	for pos := ""; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		ws, _, err := websocket.Dial(ctx, "wss://"+site+"/ws?since="+pos, &websocket.DialOptions{
			HTTPClient: client, HTTPHeader: http.Header{"Origin": {"https://" + site}},
		})
		if err != nil {
			continue // during a reload, the proxy may not listen
		}
		ws.SetReadLimit(-1)
		v.connections.Add(1)
		v.changed()
		for {
			_, data, err := ws.Read(ctx)
			if err != nil {
				break
			}
			var frame struct {
				Type, Pos string
				Messages  []struct{ Text string }
			}
			if err := json.Unmarshal(data, &frame); err != nil {
				ws.CloseNow()
				return fmt.Errorf("a frame is not JSON: %w", err)
			}
			if frame.Type == "history" {
				v.histories++
				v.texts = nil
			}
			for _, m := range frame.Messages {
				v.texts = append(v.texts, m.Text)
			}
			pos = frame.Pos
			v.n.Store(int64(len(v.texts)))
			v.changed()
		}
		ws.CloseNow()
	}
}

// changed wakes the test if it waits.
func (v *resuming) changed() {
	select {
	case v.caughtUp <- 1:
	default:
	}
}
