package llm_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/relayguard/relayguard/examples/device/llm"
)

// thought returns an event with a thought in a member of the delta.
func thought(member, text string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"delta\":{%q:%q}}]}\n\n", member, text)
}

// pieces returns an answer that has text in pieces of n bytes.
func pieces(text string, n int) (events string) {
	for len(text) > 0 {
		n = min(n, len(text))
		events += delta(text[:n])
		text = text[n:]
	}
	return events
}

// What a model thinks before it answers is dropped, or is a quotation, however
// the endpoint sends it. The model never gets it again.
func TestReasoning(t *testing.T) {
	parts := `data: {"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Okay.\nSo."}]}]}}]}` + "\n\n"
	tagged := "\n<think>Okay.\nSo.</think>\n\nhello|" + filler
	for _, row := range []struct {
		why, events, dropped, apart string
	}{
		{"llama.cpp, vLLM, DeepSeek", thought("reasoning_content", "Okay.") + thought("reasoning_content", "\nSo.") + delta("hello|"+filler), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"Ollama", thought("reasoning", "Okay.\nSo.") + delta("hello|"+filler), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"the same by two names", `data: {"choices":[{"delta":{"reasoning":"Okay.","reasoning_content":"Okay."}}]}` + "\n\n" + delta("hello|"+filler), "hello|", "> Okay.\n\nhello|"},
		{"Mistral", parts + delta("hello|"+filler), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"tags", delta(tagged), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"tags in single bytes", pieces(tagged, 1), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"tags in pieces of three", pieces(tagged, 3), "hello|", "> Okay.\n> So.\n\nhello|"},
		{"an empty thought, as of a model that was told not to think", delta("<think>\n\n</think>\n\nhello|" + filler), "hello|", "> \n> \n> \n\nhello|"},
		{"a tag in the middle is text", delta("a <think>b</think> hello|" + filler), "a <think>b</think> hello|", "a <think>b</think> hello|"},
		{"a thought that never ends", delta("<think>Okay.") + finished + done, "after|", "> Okay.\n\nafter|"},
		{"half a tag", delta("<thi") + finished + done, "<thiafter|", "<thiafter|"},
		{"a thought that is no text", `data: {"choices":[{"delta":{"reasoning":{"x":1},"content":"hello|"}}]}` + "\n\n" + delta(filler), "hello|", "hello|"},
		{"a thought after text", delta("he") + thought("reasoning", "Okay.") + delta("llo|"+filler), "hello|", "he\n\n> Okay.\n\nllo|"},
	} {
		for apart, want := range map[bool]string{false: row.dropped, true: row.apart} {
			synctest.Test(t, func(t *testing.T) {
				e := newEndpoint(t, stream(row.events, finished, done), whole("after|"))
				th := e.thinker()
				th.Apart = apart
				heard, _, _ := strings.Cut(hear(t, th, "|"), "|")
				if got := heard + "|"; got != want {
					t.Errorf("%s, apart %v: %q, want %q", row.why, apart, got, want)
				}
				hear(t, th, "after|") // of the next answer, for which the model gets its own text
				for _, q := range e.asked {
					for _, m := range q.Messages {
						if strings.Contains(m.Content, "Okay") {
							t.Errorf("%s, apart %v: the model gets its thoughts again: %q", row.why, apart, m.Content)
						}
					}
				}
				th.Next(cancelled(t))
			})
		}
	}
}

// Pieces of any size are the same answer.
func FuzzThinkTags(f *testing.F) {
	f.Add("<think>a</think>b", 1)
	f.Add(" <think></thi</think></think>", 2)
	f.Add("\n<thin", 3)
	f.Fuzz(func(t *testing.T, text string, size int) {
		whole := llm.Tagged(text, len(text)+1)
		if got := llm.Tagged(text, 1+(size&0xff)%20); got != whole {
			t.Errorf("%q is %q, and in pieces %q", text, whole, got)
		}
	})
}

func TestParseRequest(t *testing.T) {
	for _, row := range []struct{ why, text, want string }{
		{"more", `{"temperature":0.7,"stop":["x"],"options":{"n":1}}`, ""},
		{"nothing more", ` {} `, ""},
		{"the device's", `{"messages":[],"n":2}`, "must not set \"messages\": -prompt sets how a life begins\nmust not set \"n\": the device publishes one answer"},
		{"in other letters, which Ollama ignores", `{"STREAM":false}`, `must not set "STREAM"`},
		{"twice", `{"top_p":1,"top_p":0.5}`, `sets "top_p" twice`},
		{"a list", `[]`, "must be a JSON object"},
		{"nothing", ``, "must be a JSON object"},
		{"cut off", `{"top_p":`, "is not JSON"},
		{"a comma too many", `{"top_p":1,}`, "is not JSON: after"},
		{"two", `{}{}`, "nothing after it"},
		{"a stray brace", `{}}`, "nothing after it"},
	} {
		request, err := llm.ParseRequest([]byte(row.text))
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, %v", row.why, request, err)
		}
	}
}

// The members of the file are in each request, beside those of the device.
func TestRequestIsMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, whole("hello|"))
		th := e.thinker()
		var err error
		if th.Model.Request, err = llm.ParseRequest([]byte(`{"temperature":0.7,"options":{"num_ctx":4096}}`)); err != nil {
			t.Fatal(err)
		}
		hear(t, th, "|")
		hear(t, th, "|")
		th.Next(cancelled(t))
		for _, q := range e.asked {
			if q.Temperature != 0.7 || q.Options["num_ctx"] != 4096 || q.Model != "m" || !q.Stream || len(q.Messages) == 0 {
				t.Errorf("the endpoint was asked %+v", q)
			}
		}
		if len(e.asked) < 2 {
			t.Errorf("asked %d times", len(e.asked))
		}
	})
}

// A model that is switched off for a night is a line when it goes and one when
// it comes back, and is asked about twice a minute.
func TestModelIsOffAtNight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		off := stream() // breaks off, as do connections to a machine that goes down
		answers := []func(http.ResponseWriter, *http.Request){whole("evening|")}
		for i := range 1200 {
			switch {
			case i%3 == 0: // the proxy before the model
				answers = append(answers, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502 + 2*(i%2)) })
			default:
				answers = append(answers, off)
			}
		}
		answers = append(answers, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, whole("morning|"))
		e := newEndpoint(t, answers...)
		th := e.thinker()
		hear(t, th, "evening|")
		hear(t, th, "morning|")
		th.Next(cancelled(t))
		logs := e.logs.String()
		if n := strings.Count(logs, "is asked again"); n != 2 || strings.Count(logs, "404") != 1 || strings.Count(logs, "answers again") != 1 || !strings.Contains(logs, "tries=1201") {
			t.Errorf("%d lines of the outage:\n%.3000s", n, logs)
		}
		night := e.asked[len(e.asked)-1].at.Sub(e.asked[0].at)
		if per := night.Seconds() / 1200; per < 15 || per > 30 {
			t.Errorf("asked every %v seconds", per)
		}
	})
}
