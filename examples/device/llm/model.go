package llm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/client"
)

// The device gives up a stream if the endpoint sends no event for these times.
// The first token takes longer, because the endpoint may have to load a model
// of many gigabytes.
const (
	firstWait = 5 * time.Minute // before the first event
	stallWait = time.Minute     // between two events
)

// maxMalformed is how many malformed events in a row are skipped. One more ends
// the stream.
const maxMalformed = 20

// Model is a model of an OpenAI-compatible API that streams chat completions,
// such as Ollama, llama.cpp, vLLM or a hosted one.
type Model struct {
	URL    string // the base URL, such as http://localhost:11434/v1
	Name   string
	APIKey envcheck.Secret // may be empty
	// Client makes the requests. It follows no redirect to another scheme, host
	// or port. If nil, the transport is http.DefaultTransport.
	Client *http.Client
}

// Message is one message of a conversation.
type Message struct {
	Role    string `json:"role"` // "user" or "assistant"
	Content string `json:"content"`
}

// Errors of an endpoint. None of them quotes a text of the endpoint, because it
// may repeat the conversation.
var (
	errStalled   = errors.New("llm: the endpoint has sent nothing for too long")
	errBrokenOff = errors.New("llm: the stream ended in the middle")
	errMalformed = errors.New("llm: the endpoint does not send chat completion events")
)

// statusError is an answer that is not a stream, or an event that reports an
// error.
type statusError struct {
	status     int    // 0 for an event
	kind       string // the endpoint's short name for the error, or ""
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	text := "llm: the endpoint reports an error"
	if e.status != 0 {
		text = fmt.Sprintf("llm: the endpoint answers %d %s", e.status, http.StatusText(e.status))
	}
	if e.kind != "" {
		text += " (" + e.kind + ")"
	}
	switch {
	case e.status/100 == 3:
		text += ": the conversation is not sent to another address: give that of the API itself (-llm)"
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		text += ": check LLM_API_KEY"
	case e.status == http.StatusNotFound:
		text += ": check -llm and -model"
	}
	return text
}

// stream is an answer that is being read. Only one goroutine may use it at a
// time.
type stream struct {
	events    *events
	body      io.Closer
	cancel    context.CancelCauseFunc
	ctx       context.Context
	wait      time.Duration
	malformed int  // malformed events in a row
	skipped   int  // events skipped in this stream
	finished  bool // the endpoint sent a finish_reason
}

// open sends the conversation and returns the stream of the answer.
func (m *Model) open(ctx context.Context, conversation []Message) (_ *stream, err error) {
	body, err := json.Marshal(struct {
		Model    string    `json:"model"`
		Messages []Message `json:"messages"`
		Stream   bool      `json:"stream"`
	}{m.Name, conversation, true})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			cancel(err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(m.URL, "/")+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	if key := m.APIKey.Reveal(); key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	stalled := time.AfterFunc(firstWait, func() { cancel(errStalled) })
	defer stalled.Stop()
	res, err := client.New(m.Client).Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("llm: request: %w", err)
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode == http.StatusOK && media == "text/event-stream" {
		return &stream{events: newEvents(res.Body), body: res.Body, cancel: cancel, ctx: ctx, wait: firstWait}, nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	kind, isError := errorKind(said)
	if res.StatusCode == http.StatusOK && !isError {
		return nil, fmt.Errorf("%w: the content type is not text/event-stream", errMalformed)
	}
	e := &statusError{status: res.StatusCode, kind: kind}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.retryAfter = min(time.Duration(min(seconds, 3600))*time.Second, 5*time.Minute)
	}
	return nil, e
}

// close ends the stream.
func (s *stream) close() {
	s.cancel(nil)
	_ = s.body.Close()
}

// next returns the next piece of text, or io.EOF after the last one. A piece is
// valid UTF-8 and not empty.
func (s *stream) next() (string, error) {
	for !s.finished {
		// The timer runs only while next waits, because the caller may take any
		// time between two calls.
		stalled := time.AfterFunc(s.wait, func() { s.cancel(errStalled) })
		name, data, err := s.events.next()
		stalled.Stop()
		var text string
		switch {
		case errors.Is(err, errTooLong):
			err = s.skip()
		case err != nil && context.Cause(s.ctx) != nil:
			return "", context.Cause(s.ctx)
		case err != nil:
			return "", errBrokenOff
		case string(data) == "[DONE]":
			return "", io.EOF
		default:
			text, err = s.read(name, data)
		}
		if err != nil {
			return "", err
		}
		if text != "" {
			return text, nil
		}
	}
	return "", io.EOF
}

// read returns the text of an event. It is empty if the event has none.
func (s *stream) read(name string, data []byte) (string, error) {
	if kind, ok := errorKind(data); ok || name == "error" {
		return "", &statusError{kind: kind}
	}
	var chunk struct {
		Choices []struct {
			Delta  struct{ Content *string }
			Finish *string `json:"finish_reason"`
		}
	}
	if json.Unmarshal(data, &chunk) != nil || chunk.Choices == nil {
		return "", s.skip()
	}
	s.malformed, s.wait = 0, stallWait
	var text string
	for _, c := range chunk.Choices[:min(1, len(chunk.Choices))] { // the request asks for one; the last event may have none
		if c.Delta.Content != nil {
			text = *c.Delta.Content
		}
		s.finished = s.finished || c.Finish != nil && *c.Finish != ""
	}
	return strings.ToValidUTF8(text, "\uFFFD"), nil
}

// skip counts a malformed event. It returns an error if there were too many.
func (s *stream) skip() error {
	s.skipped++
	if s.malformed++; s.malformed > maxMalformed {
		return errMalformed
	}
	return nil
}

var kinds = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

// errorKind reports whether data is an error, in one of two forms:
// {"error":{"type":…,"code":…}} or {"error":"…"}. It returns the code or the
// type if it is a short name, else "".
func errorKind(data []byte) (string, bool) {
	var outer struct{ Error json.RawMessage }
	if json.Unmarshal(data, &outer) != nil || len(outer.Error) == 0 || string(outer.Error) == "null" {
		return "", false
	}
	var inner struct{ Type, Code any }
	if json.Unmarshal(outer.Error, &inner) == nil {
		for _, v := range []any{inner.Code, inner.Type} {
			if s, ok := v.(string); ok && kinds.MatchString(s) {
				return s, true
			}
		}
	}
	return "", true
}
