package publish_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"nhooyr.io/websocket"
)

// numbers is a Source of the texts 0, 1, 2 … up to last.
type numbers struct{ next, last int }

func (n *numbers) Next(ctx context.Context) (wire.Message, error) {
	if n.next > n.last {
		return wire.Message{}, io.EOF
	}
	n.next++
	return wire.Message{Text: strconv.Itoa(n.next - 1)}, ctx.Err()
}

// fakeRelay accepts the token "good" and calls got with every message and the
// number of its connection. If got returns false, it cuts the connection.
func fakeRelay(t *testing.T, got func(connection int, text string) (goOn bool)) (url string) {
	var connections atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		n := int(connections.Add(1))
		ctx := r.Context()
		_, data, err := ws.Read(ctx)
		if err != nil {
			return
		}
		// A viewer's frame may arrive before the answer, and is not the answer.
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"type":"history","messages":[]}`))
		if string(data) != `{"token":"good"}` {
			_ = ws.Write(ctx, websocket.MessageText, []byte(`{"error":"Authentication failed"}`))
			return
		}
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"status":"authenticated","expires_at":1}`))
		for {
			_, data, err := ws.Read(ctx)
			if err != nil {
				return
			}
			var m wire.Message
			if json.Unmarshal(data, &m) != nil || !got(n, m.Text) {
				return // without an acknowledgement
			}
			_ = ws.Write(ctx, websocket.MessageText, wire.Ack(m.ID, false))
		}
	}))
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

var good = publish.TokenFunc(func() (string, error) { return "good", nil })

func TestRunPublishesInOrder(t *testing.T) {
	texts := make(chan string, 10)
	url := fakeRelay(t, func(_ int, text string) bool { texts <- text; return true })
	err := publish.Run(t.Context(), publish.Config{URL: url, Tokens: good, Source: &numbers{last: 4}})
	if !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the source's end", err)
	}
	for i := range 5 {
		if text := <-texts; text != strconv.Itoa(i) {
			t.Errorf("message %d is %q", i, text)
		}
	}
}

// After the connection was lost, unacknowledged messages are sent again, before
// later ones. Run ends after the last acknowledgement.
func TestRunSendsAgain(t *testing.T) {
	var mu sync.Mutex
	acknowledged := map[string]int{}
	url := fakeRelay(t, func(connection int, text string) bool {
		if text == "2" && connection == 1 || text == "4" && connection == 2 {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if _, ok := acknowledged[text]; !ok {
			acknowledged[text] = len(acknowledged)
		}
		return true
	})
	err := publish.Run(t.Context(), publish.Config{URL: url, Tokens: good, Source: &numbers{last: 4}})
	if !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the source's end", err)
	}
	for i := range 5 {
		if got, ok := acknowledged[strconv.Itoa(i)]; !ok || got != i {
			t.Errorf("message %d was the relay's number %d (%v)", i, got, ok)
		}
	}
}

// A message that is too large for the relay is not sent, and the others are.
func TestRunLeavesOutWhatIsTooLarge(t *testing.T) {
	texts := make(chan string, 3)
	url := fakeRelay(t, func(_ int, text string) bool { texts <- text; return true })
	source := &list{strings.Repeat("x", 70_000), "fits"}
	if err := publish.Run(t.Context(), publish.Config{URL: url, Tokens: good, Source: source}); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if text := <-texts; text != "fits" {
		t.Errorf("got %d bytes", len(text))
	}
}

// list is a Source of its items.
type list []string

func (l *list) Next(context.Context) (wire.Message, error) {
	if len(*l) == 0 {
		return wire.Message{}, io.EOF
	}
	text := (*l)[0]
	*l = (*l)[1:]
	return wire.Message{Text: text}, nil
}

func TestRunAsksForAnotherToken(t *testing.T) {
	texts := make(chan string, 1)
	url := fakeRelay(t, func(_ int, text string) bool { texts <- text; return true })
	tokens := []string{"stale", "good"}
	err := publish.Run(t.Context(), publish.Config{URL: url, Source: &numbers{}, Tokens: publish.TokenFunc(func() (string, error) {
		token := tokens[0]
		tokens = tokens[1:]
		return token, nil
	})})
	if text := <-texts; text != "0" || !errors.Is(err, io.EOF) {
		t.Errorf("got %q and %v", text, err)
	}
}

// A life has a prompt, words and memory figures. After it ends, the number of
// the next one is one higher.
func TestMuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := publish.Muse{Life: 4}
		var lives, prompts, figures, words int
		for lives < 3 {
			msg, err := m.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case msg.Restarting():
				if *msg.Status.NumRestarts != float64(lives) {
					t.Errorf("life %d is announced as %v", lives, *msg.Status.NumRestarts)
				}
				lives++
			case strings.TrimSpace(msg.Text) == "":
				t.Errorf("a message without a word: %+v", msg)
			default:
				words++
			}
			if msg.Prompt != nil {
				prompts++
			}
			if msg.Memory != nil {
				figures++
				if msg.Memory.TotalMB <= 0 || msg.Memory.PercentUsed <= 0 || msg.Memory.PercentUsed > 100 {
					t.Errorf("impossible figures: %+v", *msg.Memory)
				}
			}
		}
		if prompts != 2 || figures < 2 || words < 12 {
			t.Errorf("in two lives: %d prompts, %d figures, %d words", prompts, figures, words)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := m.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	})
}
