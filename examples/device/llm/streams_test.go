package llm_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/device/llm"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

func event(data string) string { return "data: " + data + "\n\n" }

// A stream that the SDKs of the API read is read here too: without a second
// request, and with all of its text.
func TestStreamsThatSDKsRead(t *testing.T) {
	const head = `{"choices":[{"index":0,"delta":`
	text := delta("hello|") + delta(filler) + finished + done
	typed := func(contentType, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			if contentType != "" {
				w.Header().Set("Content-Type", contentType)
			}
			_, _ = io.WriteString(w, body)
		}
	}
	many := func(s string) string { return strings.Repeat(s, 50) }
	for _, row := range []struct {
		why    string
		answer func(http.ResponseWriter, *http.Request)
	}{
		{"a list of parts", stream(event(head+`{"content":[{"type":"text","text":"hel"},{"type":"text","text":"lo|"}]}}]}`), delta(filler), finished, done)},
		{"thinking comes in parts of its own", stream(many(event(head+`{"content":[{"type":"thinking","thinking":[{"type":"text","text":"no"}]}]}}]}`)), text)},
		{"a part without a type", stream(event(head+`{"content":[{"text":"hello|"}]}}]}`), delta(filler), finished, done)},
		{"parts of unknown kinds", stream(many(event(head+`{"content":[{"type":"refusal","text":7},7,null]}}]}`)), text)},
		{"content of an unknown kind", stream(many(event(head+`{"content":{"x":1}}}]}`)), text)},
		{"comments sent as data", stream(many(event(": PROCESSING")), text)},
		{"pings sent as data", stream(many("event: ping\n"+event(`{"type":"ping"}`)), text)},
		{"events with unknown names", stream(many("event: usage\n"+event(`{"tokens":7}`)), text)},
		{"objects without choices", stream(many(event(`{"id":"x","usage":{}}`)), text)},
		{"choices that are null", stream(many(event(`{"choices":null}`)), text)},
		{"text that is no JSON", stream(many(event(`hello there`)), text)},
		{"empty data", stream(many("data:\n\n"), text)},
		{"finish_reason before the text", stream(event(head+`{"role":"assistant"},"finish_reason":"stop"}]}`), text)},
		{"finish_reason with each text", stream(event(head+`{"content":"hel"},"finish_reason":"stop"}]}`), event(head+`{"content":"lo|"},"finish_reason":"stop"}]}`), delta(filler), finished, done)},
		{"an empty finish_reason", stream(event(head+`{"content":"hel"},"finish_reason":""}]}`), event(head+`{"content":"lo|"},"finish_reason":""}]}`), delta(filler), finished, done)},
		{"text beside the finish_reason", stream(delta(filler), event(head+`{"content":"hello|"},"finish_reason":"length"}]}`), done)},
		{"no finish_reason", stream(delta("hello|"), delta(filler), done)},
		{"spaces around [DONE]", stream(delta("hello|"), delta(filler), "data:  [DONE] \n\n")},
		{"an error of null", stream(event(`{"error":null,"choices":[{"delta":{"content":"hello|"}}]}`), delta(filler), finished, done)},
		{"an empty error", stream(event(`{"error":"","choices":[{"delta":{"content":"hello|"}}]}`), delta(filler), finished, done)},
		{"an error without members", stream(event(`{"error":{},"choices":[{"delta":{"content":"hello|"}}]}`), delta(filler), finished, done)},
		{"an error that is false", stream(event(`{"error":false,"choices":[{"delta":{"content":"hello|"}}]}`), delta(filler), finished, done)},
		{"an error with empty members", stream(event(`{"error":{"message":"","type":null,"code":0,"param":[]},"choices":[{"delta":{"content":"hello|"}}]}`), delta(filler), finished, done)},
		{"no content type", typed("", text)},
		{"that of a document", typed("application/json", text)},
		{"that of a text", typed("text/plain; charset=utf-8", text)},
		{"one that cannot be parsed", typed(";;", text)},
		{"that of newline-delimited JSON", typed("application/x-ndjson", text)},
		{"empty lines first", typed("", "\n\r\n\n"+text)},
		{"compressed, though the request did not ask for it", func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("asked for %q", got)
			}
			w.Header().Set("Content-Type", "text/event-stream")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
		}},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, row.answer, whole("second|"))
				thinker := e.thinker()
				if got := hear(t, thinker, "|"); len(e.asked) != 1 || strings.Trim(got, ".") != "hello|" {
					t.Errorf("asked %d times, heard %q\n%s", len(e.asked), got, &e.logs)
				}
				hear(t, thinker, "second|") // the stream ends in form
				if log := e.logs.String(); strings.Contains(log, "asked again") {
					t.Error(log)
				}
				thinker.Next(cancelled(t))
			})
		})
	}
}

// How long an answer may take depends on chunks alone, and the bound can be
// set.
func TestSilence(t *testing.T) {
	const begin = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n"
	for _, row := range []struct {
		why     string
		silence time.Duration
		first   string
		alive   string        // each second
		until   time.Duration // after which the text comes
		asked   int
	}{
		{"a model thinks for minutes", 0, begin, ": keepalive\n\n", 4 * time.Minute, 1},
		{"before it says anything", 0, "", ": keepalive\n\n", 4 * time.Minute, 1},
		{"or for too long", 0, begin, ": keepalive\n\n", 6 * time.Minute, 2},
		{"pings prove nothing", 0, begin, "event: ping\n" + event(`{"type":"ping"}`), 6 * time.Minute, 2},
		{"nor does nonsense", 0, begin, event("nonsense"), 6 * time.Minute, 2},
		{"chunks without text do", 0, begin, begin, 20 * time.Minute, 1},
		{"a longer bound", time.Hour, begin, ": keepalive\n\n", 50 * time.Minute, 1},
		{"a shorter one", 10 * time.Second, begin, ": keepalive\n\n", 20 * time.Second, 2},
		{"after the first text it is a fifth", time.Hour, delta("x"), ": keepalive\n\n", 11 * time.Minute, 1},
		{"and no more", time.Hour, delta("x"), ": keepalive\n\n", 13 * time.Minute, 2},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
					stream(row.first)(w, r)
					for begun := time.Now(); time.Since(begun) < row.until; {
						select {
						case <-time.After(time.Second):
						case <-r.Context().Done():
							return
						}
						stream(row.alive)(w, r)
					}
					stream(delta("hello|"), delta(filler), finished, done)(w, r)
				}, whole("second|"))
				thinker := e.thinker()
				thinker.Model.Silence = row.silence
				hear(t, thinker, "|")
				if len(e.asked) != row.asked {
					t.Errorf("asked %d times, want %d\n%s", len(e.asked), row.asked, &e.logs)
				}
				thinker.Next(cancelled(t))
			})
		})
	}
}

// An endpoint that keeps a finished stream open does not hold the device up.
func TestFinishedButOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
			stream(delta(filler), finished)(w, r)
			<-r.Context().Done()
		}, whole("second|"))
		thinker := e.thinker()
		begun := time.Now()
		hear(t, thinker, "second|")
		if d := time.Since(begun); d > 10*time.Second || strings.Contains(e.logs.String(), "WARN") {
			t.Errorf("after %v\n%s", d, &e.logs)
		}
		thinker.Next(cancelled(t))
	})
}

// The log holds the names and the number of an error, whatever its form, and
// none of its texts.
func TestErrorNames(t *testing.T) {
	for _, row := range []struct {
		why    string
		status int
		body   string
		want   string
	}{
		{"a number alone", 200, event(`{"error":{"code":429,"message":"` + secret + `"}}`), "(429)"},
		{"beside an empty choice", 200, event(`{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502,"message":"` + secret + `"}}`), "(502)"},
		{"a finish_reason alone", 200, event(`{"choices":[{"delta":{},"finish_reason":"error"}]}`), "reports an error"},
		{"an object of errors", 200, event(`{"object":"error","message":"` + secret + `","type":"BadRequestError","code":400}`), "(400, BadRequestError)"},
		{"a type of errors", 200, event(`{"type":"error","error":{"type":"overloaded_error"}}`), "(overloaded_error)"},
		{"a field of the stream", 200, `error: {"code":500,"message":"` + secret + `","type":"server_error"}` + "\n\n", "(500, server_error)"},
		{"a field with a text", 200, "error: " + secret + "\n\n", "reports an error"},
		{"a document in place of a stream", 200, `{"error":{"code":"context_length_exceeded"}}`, "(context_length_exceeded)"},
		{"in a list", 200, `[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]`, "(429, RESOURCE_EXHAUSTED)"},
		{"a document after spaces", 200, "\n\n " + `{"error":"` + secret + `"}`, "reports an error"},
		{"a status and a document", 400, `{"object":"error","type":"BadRequestError","message":"` + secret + `"}`, "400 Bad Request (BadRequestError)"},
		{"a status and a list", 429, `[{"error":{"status":"RESOURCE_EXHAUSTED"}}]`, "429 Too Many Requests (RESOURCE_EXHAUSTED)"},
		{"a name that may be a text", 200, event(`{"error":{"type":"` + secret + ` said so"}}`), "reports an error"},
	} {
		t.Run(row.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(row.status)
					_, _ = io.WriteString(w, row.body)
				}, whole("after|"))
				thinker := e.thinker()
				hear(t, thinker, "after|")
				if log := e.logs.String(); !strings.Contains(log, row.want) || strings.Contains(log, secret) {
					t.Errorf("want %q and no text:\n%s", row.want, log)
				}
				thinker.Next(cancelled(t))
			})
		})
	}
}

// A date in Retry-After counts as seconds do.
func TestRetryAfterDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(40*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusTooManyRequests)
		}, whole("after|"))
		thinker := e.thinker()
		hear(t, thinker, "after|")
		if d := e.asked[1].at.Sub(e.asked[0].at); d < 39*time.Second || d > time.Minute {
			t.Errorf("asked again after %v", d)
		}
		thinker.Next(cancelled(t))
	})
}

// No body makes the device publish anything but UTF-8 of limited size.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		"", delta("x"), finished, done, "error: {}\n\n", event(`{"error":{}}`), `[{"error":1}]`, "\x1f\x8b\x08", "\uFEFF{", event(`{"choices":[{"delta":{"content":[{"text":"x"}]}}]}`),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		thinker := &llm.Thinker{
			Model: &llm.Model{URL: "http://model.test/v1", Name: "m", Client: &http.Client{Transport: answering(func() (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: closing{bytes.NewReader(body), cancel}}, nil
			})}},
			Figures: func() *wire.Memory { return nil },
		}
		for {
			m, err := thinker.Next(ctx)
			if err != nil {
				return
			}
			if !utf8.ValidString(m.Text) || len(m.Text) > 8<<10 {
				t.Fatalf("%d bytes", len(m.Text))
			}
		}
	})
}

type answering func() (*http.Response, error)

func (a answering) RoundTrip(*http.Request) (*http.Response, error) { return a() }

// closing ends the context of a test when the stream was read.
type closing struct {
	io.Reader
	end context.CancelFunc
}

func (c closing) Close() error { c.end(); return nil }
