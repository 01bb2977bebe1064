package publish_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"nhooyr.io/websocket"
)

// scripted serves connections, and calls f with each after it has
// authenticated. n is the number of the connection, from 1.
func scripted(t *testing.T, f func(n int, say func(string), hear func() string)) *http.Client {
	ln := newPipes()
	var n atomic.Int64
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		say := func(s string) { _ = ws.Write(context.Background(), websocket.MessageText, []byte(s)) }
		hear := func() string {
			_, data, err := ws.Read(context.Background())
			if err != nil {
				return ""
			}
			return string(data)
		}
		hear()
		say(`{"status":"authenticated"}`)
		f(int(n.Add(1)), say, hear)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		time.Sleep(2 * time.Second)
	})
	return &http.Client{Transport: &http.Transport{DialContext: ln.dial}}
}

// day returns a context that ends a test which would otherwise never end.
func day(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	t.Cleanup(cancel)
	return ctx
}

func parse(t *testing.T, data string) wire.Message {
	t.Helper()
	var m wire.Message
	if err := json.Unmarshal([]byte(data), &m); err != nil || m.ID == "" {
		t.Errorf("not a message: %q", data)
	}
	return m
}

// The relay refuses a message, because the token has expired, and then accepts
// another token. A message that was sent in between would be accepted, so that
// the order would be lost.
func TestNothingOvertakesWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		client := scripted(t, func(_ int, say func(string), hear func() string) {
			parse(t, hear()) // message 0, which is refused below
			say(`{"status":"expiring","expires_at":1}`)
			if token := hear(); token != `{"token":"good"}` {
				t.Errorf("got %q, want a token", token)
			}
			next := make(chan string)
			go func() {
				defer close(next)
				for data := hear(); data != ""; data = hear() {
					next <- data
				}
			}()
			select {
			case data := <-next:
				t.Errorf("%q was sent while a token was being shown", data)
			case <-time.After(5 * time.Second):
			}
			say(`{"status":"viewer"}`)
			say(`{"status":"authenticated"}`)
			for data := range next {
				m := parse(t, data)
				got = append(got, m.Text)
				say(string(wire.Ack(m.ID, false)))
			}
		})
		source := &ticking{numbers{last: 4}, 10 * time.Millisecond}
		err := publish.Run(day(t), publish.Config{URL: "ws://relay.test/ws", Tokens: good, Source: source, Client: client})
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		for i := range 5 {
			if len(got) != 5 || got[i] != strconv.Itoa(i) {
				t.Fatalf("the relay took %q", got)
			}
		}
	})
}

// A message whose form the relay refuses is dropped, and later messages are
// sent.
func TestRefusedMessageIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		client := scripted(t, func(_ int, say func(string), hear func() string) {
			for data := hear(); data != ""; data = hear() {
				m := parse(t, data)
				if m.Text == "1" {
					say(`{"error":"Invalid message format","detail":"text: is too clever"}`)
					continue
				}
				got = append(got, m.Text)
				say(string(wire.Ack(m.ID, false)))
			}
		})
		err := publish.Run(day(t), publish.Config{URL: "ws://relay.test/ws", Tokens: good, Source: &numbers{last: 2}, Client: client})
		if !errors.Is(err, io.EOF) || len(got) != 2 || got[0] != "0" || got[1] != "2" {
			t.Errorf("%v, %q", err, got)
		}
	})
}

// The device detects a relay that no longer answers, even if there is nothing
// to send.
func TestDeadLinkIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		client := scripted(t, func(n int, say func(string), hear func() string) {
			if n == 1 {
				<-release // reads nothing, answers nothing
				return
			}
			for data := hear(); data != ""; data = hear() {
				say(string(wire.Ack(parse(t, data).ID, false)))
			}
		})
		begun := time.Now()
		err := publish.Run(day(t), publish.Config{URL: "ws://relay.test/ws", Tokens: good, Source: &numbers{last: 2}, Client: client})
		close(release)
		if took := time.Since(begun); !errors.Is(err, io.EOF) || took < 30*time.Second || took > time.Minute {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// The device waits as long as Retry-After asks, up to five minutes.
func TestRetryAfter(t *testing.T) {
	for header, least := range map[string]time.Duration{"40": 40 * time.Second, "999999999": 5 * time.Minute, "-3": 0, "soon": 0} {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipes()
			var at []time.Time
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				at = append(at, time.Now())
				w.Header().Set("Retry-After", header)
				w.WriteHeader(http.StatusTooManyRequests)
			})}
			served := make(chan struct{})
			go func() { defer close(served); _ = srv.Serve(ln) }()
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			transport := &http.Transport{DialContext: ln.dial}
			err := publish.Run(ctx, publish.Config{URL: "ws://relay.test/ws", Tokens: good, Source: &numbers{last: 0}, Client: &http.Client{Transport: transport}})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			transport.CloseIdleConnections()
			_ = srv.Close()
			<-served
			time.Sleep(2 * time.Second)
			if len(at) < 2 || at[1].Sub(at[0]) < least || at[1].Sub(at[0]) > least+time.Second {
				t.Errorf("%s: came back at %v", header, at)
			}
		})
	}
}
