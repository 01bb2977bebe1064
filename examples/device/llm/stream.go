package llm

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxMalformed is how many malformed events in a row are taken for the
	// reason if the stream then ends.
	maxMalformed = 20

	// finishWait is how long the stream is read after a finish_reason. Some
	// endpoints send one before the text, and some send no [DONE].
	finishWait = 5 * time.Second

	maxDocument = 64 << 10 // bytes of a body that is no stream
)

// errOver ends a stream that has finished without [DONE].
var errOver = errors.New("llm: the stream has finished")

// stream is an answer that is being read. Only one goroutine may use it at a
// time.
type stream struct {
	events  *events
	body    io.Closer
	cancel  context.CancelCauseFunc
	ctx     context.Context
	silence time.Duration
	typed   bool // the content type is that of a stream
	loud    bool // thoughts are not dropped

	tags      thinkTags
	unread    []piece // that were read and not returned yet
	over      error   // what next returns after them
	begun     bool    // next was called
	known     bool    // a chunk of a chat completion was read
	heard     bool    // a chunk had text
	finished  bool    // the endpoint sent a finish_reason
	malformed int     // malformed events in a row
	skipped   int     // malformed events in this stream
}

// close ends the stream.
func (s *stream) close() {
	s.cancel(nil)
	_ = s.body.Close()
}

// next returns the next piece, or io.EOF after the last one. A piece is valid
// UTF-8 and not empty.
func (s *stream) next() (piece, error) {
	if p, ok := s.take(); ok || s.over != nil {
		return p, s.over
	}
	// The timer runs only while next waits, because the caller may take any
	// time between two calls.
	stalled := s.timer()
	defer func() { stalled.Stop() }()
	if !s.begun {
		s.begun = true
		if data, ok := s.events.document(); ok {
			return piece{}, s.document(data)
		}
	}
	for {
		name, data, err := s.events.next()
		switch {
		case errors.Is(err, errTooLong):
			s.skip()
			continue
		case err != nil:
			return s.last(s.ended())
		case string(bytes.TrimSpace(data)) == "[DONE]":
			return s.last(io.EOF)
		}
		chunk, err := s.read(name, data)
		if err != nil {
			return piece{}, err
		}
		if p, ok := s.take(); ok {
			return p, nil
		}
		if chunk { // other events do not prove that the model still works
			stalled.Stop()
			stalled = s.timer()
		}
	}
}

// take returns the next piece that was read.
func (s *stream) take() (p piece, ok bool) {
	if len(s.unread) == 0 {
		return p, false
	}
	p, s.unread = s.unread[0], s.unread[1:]
	return p, true
}

// last returns what is left, and then err.
func (s *stream) last(err error) (piece, error) {
	s.over = err
	s.add(s.tags.end()...)
	p, ok := s.take()
	if ok {
		err = nil
	}
	return p, err
}

// add notes pieces that were read.
func (s *stream) add(pieces ...piece) {
	for _, p := range pieces {
		p.text = strings.ToValidUTF8(p.text, "\uFFFD")
		if p.text != "" && (s.loud || !p.thought) {
			s.unread = append(s.unread, p)
		}
		s.heard = s.heard || p.text != "" && !p.thought
	}
}

// timer ends the stream if the next chunk is late.
func (s *stream) timer() *time.Timer {
	wait, cause := s.silence, errStalled
	if s.heard {
		wait /= 5
	}
	if s.heard && s.finished {
		wait, cause = min(wait, finishWait), errOver
	}
	return time.AfterFunc(wait, func() { s.cancel(cause) })
}

// ended returns why there are no more events.
func (s *stream) ended() error {
	switch cause := context.Cause(s.ctx); {
	case errors.Is(cause, errOver):
		return io.EOF
	case cause != nil:
		return cause
	case s.finished:
		return io.EOF
	case s.malformed > maxMalformed:
		return errMalformed
	case !s.known && !s.typed:
		return errContentType
	}
	return errBrokenOff
}

var errContentType = fmt.Errorf("%w: the content type is not text/event-stream", errMalformed)

// document returns the error for a body that is one JSON document.
func (s *stream) document(data []byte) error {
	if kind, ok := errorKind(data); ok {
		return &statusError{kind: kind}
	}
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	return errContentType
}

// read adds what an event says, if it says anything, and reports whether the
// event is a chunk of a chat completion.
func (s *stream) read(name string, data []byte) (known bool, err error) {
	kind, isError := errorKind(data)
	if name == "error" && kind == "" {
		kind = errorNames(data)
	}
	if isError || name == "error" {
		return false, &statusError{kind: kind}
	}
	var chunk struct {
		Choices []struct {
			Delta struct {
				Content content
				// The same thought, by the name of each kind of endpoint.
				Reasoned content `json:"reasoning_content"` // llama.cpp, vLLM, DeepSeek
				Reasons  content `json:"reasoning"`         // Ollama, OpenRouter
				Thinks   content `json:"thinking"`
			}
			Finish string `json:"finish_reason"` // null is ""
		}
	}
	if json.Unmarshal(data, &chunk) != nil || chunk.Choices == nil {
		if !isKeepAlive(name, data) {
			s.skip()
		}
		return false, nil
	}
	s.malformed, s.known = 0, true
	for _, c := range chunk.Choices[:min(1, len(chunk.Choices))] { // the request asks for one; the last event may have none
		if c.Finish == "error" {
			return true, &statusError{}
		}
		s.add(piece{cmp.Or(c.Delta.Reasoned.text, c.Delta.Reasons.text, c.Delta.Thinks.text, c.Delta.Content.thought), true})
		s.add(s.tags.take(c.Delta.Content.text)...)
		s.finished = s.finished || c.Finish != ""
	}
	return true, nil
}

// skip counts a malformed event.
func (s *stream) skip() {
	s.skipped++
	s.malformed++
}

// isKeepAlive reports whether an event is well-formed, but no chunk.
func isKeepAlive(name string, data []byte) bool {
	var typed struct{ Type string }
	return name != "" && name != "message" || bytes.HasPrefix(data, []byte(":")) || len(bytes.TrimSpace(data)) == 0 ||
		json.Unmarshal(data, &typed) == nil && typed.Type != ""
}

var kinds = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_.-]{0,63}|-?[0-9]{1,6})$`)

// errorKind reports whether data is an error, in one of these forms, alone or
// in a list:
//
//	{"error":{"type":…,"code":…}}
//	{"error":"…"}
//	{"object":"error","type":…,"code":…}
//
// An error without a word or a number in it is none. errorKind returns the
// names of the error, if they are short, and its number.
func errorKind(data []byte) (string, bool) {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) == nil && len(list) > 0 {
		data = list[0]
	}
	var outer struct {
		Object, Type any
		Error        json.RawMessage
	}
	var inner any
	if json.Unmarshal(data, &outer) != nil {
		return "", false
	}
	if json.Unmarshal(outer.Error, &inner) == nil && says(inner) {
		return errorNames(outer.Error), true
	}
	if outer.Object == "error" || outer.Type == "error" {
		return errorNames(data), true
	}
	return "", false
}

// errorNames returns the code, the type and the status in the object of an
// error, if they are short.
func errorNames(data []byte) string {
	var object map[string]any
	if json.Unmarshal(data, &object) != nil {
		return ""
	}
	var names []string
	for _, key := range []string{"code", "type", "status"} {
		name := ""
		switch v := object[key].(type) {
		case string:
			name = v
		case float64:
			if v == float64(int(v)) && v != 0 {
				name = strconv.Itoa(int(v))
			}
		}
		if kinds.MatchString(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// says reports whether v, of an error member, has a word or a number in it.
func says(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.TrimSpace(v) != ""
	case float64:
		return v != 0
	case bool:
		return v
	case map[string]any:
		for _, member := range v {
			if says(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, says)
	}
	return false
}

// plainReader returns a reader of the text of r, which may be compressed,
// though the request did not ask for that. The bytes decide, not the header.
// The reader reads nothing before the first Read.
func plainReader(r io.Reader) io.Reader { return &plain{raw: bufio.NewReader(r)} }

type plain struct {
	raw  *bufio.Reader
	text io.Reader
}

func (p *plain) Read(b []byte) (int, error) {
	if p.text == nil {
		p.text = p.raw
		if head, _ := p.raw.Peek(2); string(head) == "\x1f\x8b" {
			z, err := gzip.NewReader(p.raw)
			if err != nil {
				return 0, err
			}
			p.text = z
		}
	}
	return p.text.Read(b)
}
