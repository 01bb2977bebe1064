package llm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/llm"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

const (
	key    = "key-canary7731"
	secret = "words-canary7731" // a text of the endpoint, which no log may hold
)

// request is a request to the fake endpoint.
type request struct {
	at       time.Time
	Model    string
	Stream   bool
	Messages []struct{ Role, Content string }

	Temperature float64
	Options     map[string]int
}

// endpoint is a fake endpoint, in memory and in fake time. Each answer is for
// one request, the last answer for all later ones.
type endpoint struct {
	t       *testing.T
	answers []func(w http.ResponseWriter, r *http.Request)
	conns   chan net.Conn
	closed  chan struct{}
	client  *http.Client

	handlers sync.WaitGroup

	mu    sync.Mutex
	asked []request
	logs  strings.Builder
}

func newEndpoint(t *testing.T, answers ...func(http.ResponseWriter, *http.Request)) *endpoint {
	e := &endpoint{t: t, answers: answers, conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: e, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(e) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case e.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	e.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = srv.Close()
		<-served
		e.handlers.Wait()
	})
	return e
}

func (e *endpoint) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *endpoint) Close() error   { close(e.closed); return nil }
func (e *endpoint) Addr() net.Addr { return &net.TCPAddr{} }

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.handlers.Add(1)
	defer e.handlers.Done()
	q := request{at: time.Now()}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &q) != nil || r.Method != "POST" || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer "+key {
		e.t.Errorf("bad request: %s %s %q %v", r.Method, r.URL, body, err)
	}
	e.mu.Lock()
	e.asked = append(e.asked, q)
	answer := e.answers[min(len(e.asked), len(e.answers))-1]
	e.mu.Unlock()
	answer(w, r)
}

func (e *endpoint) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.logs.Write(p)
}

func (e *endpoint) thinker() *llm.Thinker {
	return &llm.Thinker{
		Model:   &llm.Model{URL: "http://model.test/v1/", Name: "m", APIKey: envcheck.NewSecret(key), Client: e.client},
		Prompt:  "Think.",
		Figures: func() *wire.Memory { return nil },
		Logger:  slog.New(slog.NewTextHandler(e, nil)),
	}
}

// stream returns an answer with these events, as they are.
func stream(events ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, event := range events {
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	}
}

func delta(text string) string {
	quoted, _ := json.Marshal(text)
	return `data: {"id":"c","choices":[{"index":0,"delta":{"content":` + string(quoted) + `},"finish_reason":null}]}` + "\n\n"
}

const (
	done     = "data: [DONE]\n\n"
	finished = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n"
)

// whole returns a complete answer that is long enough.
func whole(text string) func(http.ResponseWriter, *http.Request) {
	return stream(`data: {"choices":[{"delta":{"role":"assistant"}}]}`+"\n\n", delta(text), delta(filler), finished, done)
}

var filler = strings.Repeat(".", 64)

// hear reads the thinker's messages until they contain all texts of want, in
// order.
func hear(t *testing.T, thinker *llm.Thinker, want ...string) (all string) {
	t.Helper()
	for n := 0; len(want) > 0; n++ {
		m, err := thinker.Next(t.Context())
		if err != nil || n > 5000 {
			t.Fatalf("%v after %q", err, all)
		}
		if !utf8.ValidString(m.Text) {
			t.Fatalf("not UTF-8: %q", m.Text)
		}
		if data, err := json.Marshal(m); err != nil || len(data) > 64<<10-100 {
			t.Fatalf("a message of %d bytes: %v", len(data), err)
		}
		all += m.Text
		for len(want) > 0 && strings.Contains(all, want[0]) {
			want = want[1:]
		}
	}
	return all
}

// After any problem of an endpoint, the thinker waits, asks again, and goes on
// from its last text. The log holds no text of the endpoint.
func TestTroubledEndpoints(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		said   string // the text before the problem
		logged string
		wait   time.Duration // the shortest wait before the next request
		why    string
	}{
		{"breaks off", func(w http.ResponseWriter, r *http.Request) {
			stream(delta("one "+secret))(w, r)
			panic(http.ErrAbortHandler)
		}, "one", "ended in the middle", 250 * time.Millisecond, "a model's process is killed"},
		{"ends too early", stream(delta("one ")), "one", "ended in the middle", 250 * time.Millisecond, "neither finish_reason nor [DONE]"},
		{"cut event", stream(delta("one "), `data: {"choices":[{"delta":{"content":"`+secret), "one", "ended in the middle", 250 * time.Millisecond, "half an event is none"},
		{"stalls", func(w http.ResponseWriter, r *http.Request) {
			stream(delta("one "))(w, r)
			<-r.Context().Done()
		}, "one", "sent nothing for too long", time.Minute, "a GPU hangs"},
		{"stalls before it begins", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", "sent nothing for too long", 5 * time.Minute, "loading takes long, but not that long"},
		{"comments only", func(w http.ResponseWriter, r *http.Request) {
			stream(delta("one "))(w, r)
			for range 3 {
				stream(": keep-alive\n\n")(w, r)
				time.Sleep(40 * time.Second)
			}
		}, "one", "sent nothing for too long", time.Minute, "a comment is no progress"},
		{"error event", stream(delta("one "), `data: {"error":{"message":"`+secret+`","type":"server_error"}}`+"\n\n"), "one", "server_error", 250 * time.Millisecond, "llama.cpp"},
		{"named error event", stream(delta("one "), "event: error\ndata: "+secret+"\n\n"), "one", "reports an error", 250 * time.Millisecond, "some proxies"},
		{"error text", stream(`data: {"error":"` + secret + ` is out of memory"}` + "\n\n"), "", "reports an error", 250 * time.Millisecond, "Ollama"},
		{"500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, 500) }, "", "500 Internal Server Error", 250 * time.Millisecond, "plain text"},
		{"401", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(401)
			fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s","code":"invalid_api_key"}}`, key)
		}, "", "(invalid_api_key): check LLM_API_KEY", 250 * time.Millisecond, "hosted ones repeat the key"},
		{"404", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			fmt.Fprint(w, `{"error":{"message":"model not found"}}`)
		}, "", "check -llm and -model", 250 * time.Millisecond, "a model that was not pulled"},
		{"429", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "20")
			w.WriteHeader(429)
		}, "", "429", 20 * time.Second, "it says when"},
		{"503 for ages", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "99999999")
			w.WriteHeader(503)
		}, "", "503", 250 * time.Millisecond, "and is not believed everything"},
		{"page", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<html>"+secret)
		}, "", "content type", 250 * time.Millisecond, "a captive portal"},
		{"not streaming", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"choices":[{"message":{"content":"`+secret+`"}}]}`)
		}, "", "content type", 250 * time.Millisecond, "an endpoint that cannot stream"},
		{"error with 200", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"error":{"code":"context_length_exceeded"}}`)
		}, "", "context_length_exceeded", 250 * time.Millisecond, "seen in the wild"},
		{"malformed throughout", func(w http.ResponseWriter, r *http.Request) {
			stream(delta("one "))(w, r)
			for range 50 {
				stream("data: {"+secret+"\n\n")(w, r)
			}
		}, "one", "does not send chat completion events", 250 * time.Millisecond, "too many to go on"},
		{"says nothing", stream(finished, done), "", "empty or too short", 250 * time.Millisecond, "asking at once would be a tight loop"},
		{"says next to nothing", stream(delta("."), finished, done), ".", "empty or too short", 250 * time.Millisecond, "so would this"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, tc.answer, whole("afterwards"))
				thinker := e.thinker()
				heard := hear(t, thinker, tc.said, "afterwards")
				if n := len(e.asked); n != 2 {
					t.Fatalf("asked %d times, heard %q (%s)\n%s", n, heard, tc.why, &e.logs)
				}
				if wait := e.asked[1].at.Sub(e.asked[0].at); wait < tc.wait || wait > max(6*time.Minute, tc.wait+time.Second) {
					t.Errorf("asked again after %v, want %v (%s)", wait, tc.wait, tc.why)
				}
				if log := e.logs.String(); !strings.Contains(log, tc.logged) || strings.Contains(log, secret) || strings.Contains(log, key) {
					t.Errorf("want %q and no secret (%s):\n%s", tc.logged, tc.why, log)
				}
				second := e.asked[1].Messages
				if tc.said == "" && len(second) != 1 || tc.said != "" && (len(second) != 3 || !strings.HasPrefix(second[1].Content, tc.said) || second[1].Role != "assistant") {
					t.Errorf("it does not go on from what was said: %+v", second)
				}
				thinker.Next(cancelled(t))
			})
		})
	}
}

// cancelled returns a context that has ended. With it, Next ends the stream.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// The thinker reads streams that are unusual, but valid enough.
func TestOddStreams(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events []string
		want   string
		why    string
	}{
		{"CRLF", []string{"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n", "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n", "\r\n"}, "ab", "the standard's line ends"},
		{"CR", []string{"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\r", "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\r"}, "ab", "and the oldest"},
		{"byte by byte", strings.Split(delta("a")+delta("é")+delta("b"), ""), "aéb", "events split anywhere"},
		{"split character", []string{delta("x")[:60], delta("x")[60:], "data: {\"choices\":[{\"delta\":{\"content\":\"\xc3", "\xa9\"}}]}\n\n"}, "xé", "reads split a character"},
		{"comments", []string{": hello\n\n", delta("a"), ":\n", "retry: 5\nid: 7\n", delta("b")}, "ab", "keep-alives of proxies"},
		{"no space", []string{"data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"}, "a", "the space is optional"},
		{"two lines", []string{"data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n"}, "a", "an event of two lines is joined"},
		{"mark", []string{"\uFEFF" + delta("a")}, "a", "a byte order mark"},
		{"malformed once", []string{delta("a"), "data: {nonsense\n\n", "data: []\n\n", "data: 7\n\n", "data: {}\n\n", delta("b")}, "ab", "skipped and counted"},
		{"huge line", []string{delta("a"), "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("x", 300<<10) + "\"}}]}\n\n", delta("b")}, "ab", "bounded"},
		{"huge event", []string{delta("a"), strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 300) + "\n", delta("b")}, "ab", "in many lines, too"},
		{"null", []string{`data: {"choices":[{"delta":{"content":null}}]}` + "\n\n", `data: {"choices":[]}` + "\n\n", delta("a")}, "a", "roles, tool calls and usage have no text"},
		{"not UTF-8", []string{"data: {\"choices\":[{\"delta\":{\"content\":\"a\xff\xfeb\"}}]}\n\n", `data: {"choices":[{"delta":{"content":"\ud83d"}}]}` + "\n\n"}, "a\uFFFD\uFFFDb\uFFFD", "nothing else is ever published"},
		{"long piece", []string{delta(strings.Repeat("é", 50_000))}, strings.Repeat("é", 50_000), "goes in several messages"},
		{"escapes", []string{delta(strings.Repeat("\x01", 40_000))}, strings.Repeat("\x01", 40_000), "JSON makes six bytes of one"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, stream(append(tc.events, delta("|"+filler), finished, done)...))
				thinker := e.thinker()
				if got := hear(t, thinker, "|"); strings.TrimRight(got, ".") != tc.want+"|" {
					t.Errorf("got %.100q, want %.100q (%s)\n%s", got, tc.want, tc.why, &e.logs)
				}
				if strings.HasPrefix(tc.name, "malformed") {
					hear(t, thinker, "|", "|") // read the next stream too
					if !strings.Contains(e.logs.String(), "events=4") {
						t.Error(&e.logs)
					}
				}
				thinker.Next(cancelled(t))
			})
		})
	}
}

// During a long outage the pauses grow, and afterwards the life goes on.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
		answers := []func(http.ResponseWriter, *http.Request){whole("before")}
		for range 20 {
			answers = append(answers, down)
		}
		e := newEndpoint(t, append(answers, whole("afterwards"))...)
		thinker := e.thinker()
		hear(t, thinker, "before", "afterwards")
		if outage := e.asked[21].at.Sub(e.asked[1].at); outage < 3*time.Minute || outage > 12*time.Minute {
			t.Errorf("twenty attempts within %v", outage)
		}
		if pause := e.asked[21].at.Sub(e.asked[20].at); pause < 15*time.Second || pause > 30*time.Second {
			t.Errorf("the last pause is %v", pause)
		}
		if said := e.asked[21].Messages[1].Content; !strings.HasPrefix(said, "before") {
			t.Errorf("it goes on from %q", said)
		}
		thinker.Next(cancelled(t))
	})
}

// A life ends when memory is full. The text of it that the model gets is
// limited.
func TestLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
			n++
			whole(strconv.Itoa(n)+strings.Repeat("é", 200))(w, r)
		})
		thinker := e.thinker()
		used := 10.0
		thinker.Figures = func() *wire.Memory {
			used++
			return &wire.Memory{AvailableMB: 100 - used, PercentUsed: used, TotalMB: 100}
		}
		thinker.Mark.Percent, thinker.Restarts, thinker.Window = 90, 7, 1001
		lives, opened := 0, false
		for lives < 3 {
			m, err := thinker.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			switch {
			case m.Restarting():
				if got := *m.Status.NumRestarts; got != float64(7+lives) || m.Text != "" {
					t.Errorf("life %d is announced as %v", lives, got)
				}
				lives++
				used, opened = 10, true
			case opened:
				if m.Prompt == nil || *m.Prompt != "Think." || m.Memory == nil || *m.Status.NumRestarts != float64(6+lives) {
					t.Errorf("a life begins with %+v", m)
				}
				opened = false
			case m.Prompt != nil || m.Status != nil:
				t.Errorf("in mid-life: %+v", m)
			}
			if m.Memory != nil && m.Memory.PercentUsed > 90 {
				t.Errorf("%v percent and no restart", m.Memory.PercentUsed)
			}
		}
		fresh := 0
		for _, q := range e.asked {
			if q.Model != "m" || !q.Stream || q.Messages[0].Content != "Think." {
				t.Fatalf("%+v", q)
			}
			if len(q.Messages) == 1 {
				fresh++
				continue
			}
			if said := q.Messages[1].Content; len(said) > 1001 || !utf8.ValidString(said) {
				t.Fatalf("shown %d bytes", len(said))
			}
		}
		if fresh != 2 {
			t.Errorf("%d lives began without a past", fresh)
		}
		thinker.Next(cancelled(t))
	})
}

// A machine whose memory is always above the mark must not restart all the
// time.
func TestAlwaysFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, whole("text"))
		thinker := e.thinker()
		used := 95.0
		thinker.Figures = func() *wire.Memory { return &wire.Memory{PercentUsed: used, TotalMB: 100} }
		thinker.Mark.Percent = 90
		restarts := func() bool {
			t.Helper()
			m, err := thinker.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			return m.Restarting()
		}
		if !restarts() {
			t.Error("the first life is not announced")
		}
		for range 50 {
			if restarts() {
				t.Fatal("restarted")
			}
		}
		used = 50
		restarts()
		used = 95
		if !restarts() {
			t.Error("no restart when memory has filled again")
		}
		thinker.Next(cancelled(t))
	})
}
