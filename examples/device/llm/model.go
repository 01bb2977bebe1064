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
	"strings"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/client"
)

// standardSilence is the default of Model.Silence. The first token takes long,
// because the endpoint may have to load a model of many gigabytes, and the
// model may think before it answers.
const standardSilence = 5 * time.Minute

// Model is a model of an OpenAI-compatible API that streams chat completions,
// such as Ollama, llama.cpp, vLLM or a hosted one.
type Model struct {
	URL    string // the base URL, such as http://localhost:11434/v1
	Name   string
	APIKey envcheck.Secret[string] // may be empty
	// Silence is how long the device waits for the first text of an answer. For
	// each later text it waits a fifth of that. Only chunks of an answer count,
	// not comments and other events. 0 means 5 minutes.
	Silence time.Duration
	// Request holds more members of each request; see [ParseRequest]. The model,
	// the messages and the stream are the device's.
	Request map[string]json.RawMessage
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

// open sends the conversation and returns the stream of the answer.
func (m *Model) open(ctx context.Context, conversation []Message) (_ *stream, err error) {
	request := map[string]any{}
	for name, value := range m.Request {
		request[name] = value
	}
	request["model"], request["messages"], request["stream"] = m.Name, conversation, true
	body, err := json.Marshal(request)
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
	req.Header.Set("Accept-Encoding", "identity") // a compressed stream may come late, in large pieces
	if key := m.APIKey.Reveal(); key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	silence := m.Silence
	if silence <= 0 {
		silence = standardSilence
	}
	stalled := time.AfterFunc(silence, func() { cancel(errStalled) })
	defer stalled.Stop()
	res, err := client.New(m.Client).Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("llm: request: %w", err)
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	text := plainReader(res.Body)
	if res.StatusCode == http.StatusOK {
		// Some endpoints send a stream with the type of another body, so the
		// type only explains a body that is no stream.
		return &stream{events: newEvents(text), body: res.Body, cancel: cancel, ctx: ctx, silence: silence, typed: media == "text/event-stream"}, nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(text, maxDocument))
	kind, _ := errorKind(said)
	return nil, &statusError{status: res.StatusCode, kind: kind, retryAfter: client.RetryAfter(res.Header, 5*time.Minute)}
}
