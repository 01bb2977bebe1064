package llm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// fixed are the members of a request that the device sets itself, or whose
// answers it could not publish, each with what to do instead.
var fixed = map[string]string{
	"model":         "-model names the model",
	"messages":      "-prompt sets how a life begins",
	"prompt":        "-prompt sets how a life begins",
	"stream":        "the device always asks for a stream",
	"n":             "the device publishes one answer",
	"tools":         "the device publishes text, and calls no tools",
	"tool_choice":   "the device publishes text, and calls no tools",
	"functions":     "the device publishes text, and calls no functions",
	"function_call": "the device publishes text, and calls no functions",
}

// ParseRequest parses the rest of a request: a JSON object such as
// {"temperature":0.7}, whose members [Model.Request] adds to each request. Its
// error names every member that the device sets itself.
func ParseRequest(text []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New(`must be a JSON object such as {"temperature":0.7}`)
	}
	request := make(map[string]json.RawMessage)
	var problems []error
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, malformed(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, malformed(err)
		}
		key := name.(string) // the only token that can be there
		// Some endpoints ignore the case of names.
		why, mine := fixed[strings.ToLower(key)]
		_, twice := request[key]
		switch {
		case mine:
			problems = append(problems, fmt.Errorf("must not set %q: %s", key, why))
		case twice:
			problems = append(problems, fmt.Errorf("sets %q twice", key))
		}
		request[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, malformed(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		problems = append(problems, errors.New("must be one object, and nothing after it"))
	}
	return request, errors.Join(problems...)
}

// malformed says where the JSON is malformed, and quotes nothing of it.
func malformed(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not JSON: after %d bytes: %w", syntax.Offset, err)
	}
	return errors.New("is not JSON: it ends too early")
}
