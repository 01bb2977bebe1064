package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"
)

// SchemaError reports which rule a field of a message breaks. It never holds a
// value, so it can be sent back and logged.
type SchemaError struct {
	Field string // dotted path of a field of the protocol, or "message"
	Rule  string
}

func (e *SchemaError) Error() string { return e.Field + ": " + e.Rule }

// Answer returns the relay's answer to the publisher, in JSON.
func (e *SchemaError) Answer() []byte {
	b, _ := json.Marshal(struct { // two strings: cannot fail
		Error  string `json:"error"`
		Detail string `json:"detail"`
	}{"Invalid message format", e.Error()})
	return b
}

// Decode parses a publisher's message. It drops unknown fields and the
// timestamp. It refuses null as the value of a known field: null is not the
// same as absent. It compares names exactly. A name must not appear twice in
// one object, because parsers disagree on which of the two values counts. Every
// error is a *SchemaError.
func Decode(data []byte) (Message, error) {
	var m Message
	hasText := false
	err := object(data, "message", func(name string, value json.RawMessage) (err error) {
		switch name {
		case "text":
			hasText = true
			m.Text, err = str(name, value)
		case "memory":
			m.Memory, err = memory(value)
		case "status":
			m.Status, err = status(value)
		case "prompt":
			var s string
			s, err = str(name, value)
			m.Prompt = &s
		case "id":
			m.ID, err = str(name, value)
			if err == nil && utf8.RuneCountInString(m.ID) > MaxID {
				err = &SchemaError{name, fmt.Sprintf("must have at most %d characters", MaxID)}
			}
		}
		return err
	})
	if err == nil && !hasText {
		err = &SchemaError{"text", "is required"}
	}
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

func memory(data json.RawMessage) (*Memory, error) {
	m := Memory{AvailableMB: math.NaN(), PercentUsed: math.NaN(), TotalMB: math.NaN()}
	fields := []struct {
		name string
		into *float64
	}{{"available_mb", &m.AvailableMB}, {"percent_used", &m.PercentUsed}, {"total_mb", &m.TotalMB}}
	err := object(data, "memory", func(name string, value json.RawMessage) (err error) {
		for _, f := range fields {
			if f.name == name {
				*f.into, err = number("memory."+name, value)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		if math.IsNaN(*f.into) {
			return nil, &SchemaError{"memory." + f.name, "is required"}
		}
	}
	return &m, nil
}

func status(data json.RawMessage) (*Status, error) {
	var s Status
	err := object(data, "status", func(name string, value json.RawMessage) error {
		switch name {
		case "is_restarting":
			switch string(value) {
			case "true", "false":
				restarting := string(value) == "true"
				s.IsRestarting = &restarting
			default:
				return &SchemaError{"status.is_restarting", "must be true or false"}
			}
		case "num_restarts":
			n, err := number("status.num_restarts", value)
			if err != nil {
				return err
			}
			s.NumRestarts = &n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// object calls field for every member of the JSON object in data. It replaces
// the struct decoding of encoding/json, which ignores the case of names and
// takes the last of two equal names. path names the object in errors.
func object(data []byte, path string, field func(name string, value json.RawMessage) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return &SchemaError{path, "must be an object"}
	}
	seen := make(map[string]bool, 8)
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return &SchemaError{path, "must be valid JSON"}
		}
		if seen[name] {
			return &SchemaError{path, "must not name a field twice"}
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return &SchemaError{path, "must be valid JSON"}
		}
		if err := field(name, value); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return &SchemaError{path, "must be valid JSON"}
	}
	// More returns false before a stray "}" too, so check that the input ends
	// here.
	if _, err := dec.Token(); err != io.EOF {
		return &SchemaError{path, "must be one object"}
	}
	return nil
}

func str(path string, data json.RawMessage) (string, error) {
	var s string
	if data[0] != '"' || json.Unmarshal(data, &s) != nil {
		return "", &SchemaError{path, "must be a string"}
	}
	return s, nil
}

func number(path string, data json.RawMessage) (float64, error) {
	var n float64
	err := json.Unmarshal(data, &n)
	var typeErr *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typeErr) && (data[0] == '-' || data[0] >= '0' && data[0] <= '9'):
		return 0, &SchemaError{path, "must fit a 64-bit float"}
	case err != nil || data[0] == 'n': // null leaves n as it was, without an error
		return 0, &SchemaError{path, "must be a number"}
	}
	return n, nil
}
