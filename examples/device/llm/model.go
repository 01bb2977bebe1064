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
)

// Bounds on an endpoint's silence. The first token may wait for a model of many
// gigabytes to be loaded.
const (
	firstWait = 5 * time.Minute
	stallWait = time.Minute
)

// maxMalformed is how many events without sense in a row are skipped before the
// stream is given up.
const maxMalformed = 20

// Model is an OpenAI-compatible endpoint that streams chat completions: Ollama,
// llama.cpp, vLLM and hosted ones.
type Model struct {
	URL    string // the base, such as http://localhost:11434/v1
	Name   string
	APIKey envcheck.Secret // may be empty
	Client *http.Client    // nil: http.DefaultClient
}

// Message is a part of the conversation.
type Message struct {
	Role    string `json:"role"` // "user" or "assistant"
	Content string `json:"content"`
}

// Errors of an endpoint. None holds anything that the endpoint said in words, which
// may repeat the conversation.
var (
	errStalled   = errors.New("llm: the endpoint has said nothing for too long")
	errBrokenOff = errors.New("llm: the stream ended in the middle")
	errMalformed = errors.New("llm: the endpoint does not send chat completion events")
)

// statusError is an answer that is no stream, or an event that says what went wrong.
type statusError struct {
	status     int    // 0 for an event
	kind       string // the endpoint's own short name of it, "" if it has none
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
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += ": is LLM_API_KEY right?"
	case http.StatusNotFound:
		text += ": are -llm and -model right?"
	}
	return text
}

// stream is an answer that is being read. It is not safe for concurrent use.
type stream struct {
	events    *events
	body      io.Closer
	cancel    context.CancelCauseFunc
	ctx       context.Context
	wait      time.Duration
	malformed int  // in a row
	skipped   int  // in all
	finished  bool // the endpoint said so
}

// open asks for an answer to the conversation.
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
	client := m.Client
	if client == nil {
		client = http.DefaultClient
	}
	stalled := time.AfterFunc(firstWait, func() { cancel(errStalled) })
	defer stalled.Stop()
	res, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("llm: asking: %w", err)
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

func (s *stream) close() {
	s.cancel(nil)
	_ = s.body.Close()
}

// next returns the next piece of text, io.EOF after the last. A piece is valid UTF-8
// and not empty.
func (s *stream) next() (string, error) {
	for !s.finished {
		// Counted while waiting only: whoever reads may take his time.
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

// read makes sense of an event.
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
	for _, c := range chunk.Choices[:min(1, len(chunk.Choices))] { // one was asked for; the last event may have none
		if c.Delta.Content != nil {
			text = *c.Delta.Content
		}
		s.finished = s.finished || c.Finish != nil && *c.Finish != ""
	}
	return strings.ToValidUTF8(text, "\uFFFD"), nil
}

// skip passes over an event that makes no sense.
func (s *stream) skip() error {
	s.skipped++
	if s.malformed++; s.malformed > maxMalformed {
		return errMalformed
	}
	return nil
}

var kinds = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

// errorKind reports whether data is an error in one of the forms that are in use, and
// the short name that it has there: {"error":{"type":…,"code":…}}, {"error":"…"}.
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
