package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// SchemaError reports which rule a field of a message breaks. It never holds a
// value, so it can be sent back and logged.
type SchemaError struct {
	Field string // dotted path of a field of the protocol, or "message"
	Rule  string
}

func (e *SchemaError) Error() string { return e.Field + ": " + e.Rule }

// Answer returns the relay's answer to the publisher, in JSON.
func (e *SchemaError) Answer() []byte { return Refusal("Invalid message format", e.Error()) }

// Refusal returns an answer to a message that is refused, in JSON. The detail
// may be empty.
func Refusal(text, detail string) []byte {
	b, _ := json.Marshal(struct { // two strings: cannot fail
		Error  string `json:"error"`
		Detail string `json:"detail,omitempty"`
	}{text, detail})
	return b
}

// decoder reads one message. It finds two equal names in an object by itself.
type decoder struct {
	input bytes.Buffer
	*jsontext.Decoder
}

// A new decoder would be most of what a message allocates.
var decoders = sync.Pool{New: func() any { return &decoder{Decoder: new(jsontext.Decoder)} }}

// Decode parses a publisher's message. It drops unknown fields and the
// timestamp. It refuses null as the value of a known field: null is not the
// same as absent. It compares names exactly. A name must not appear twice in
// one object, because parsers disagree on which of the two values counts. Every
// error is a *SchemaError.
func Decode(data []byte) (Message, error) {
	d := decoders.Get().(*decoder)
	defer func() {
		d.input = bytes.Buffer{} // the message must not stay in memory
		d.Reset(&d.input)
		decoders.Put(d)
	}()
	d.input = *bytes.NewBuffer(data)
	// Text that is no UTF-8 is replaced, such as half of a pair of escapes.
	d.Reset(&d.input, jsontext.AllowInvalidUTF8(true))
	m, err := d.message()
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

func (d *decoder) message() (m Message, err error) {
	hasText := false
	err = d.object("message", func(name string) (err error) {
		switch name {
		case "text":
			hasText = true
			m.Text, err = d.str(name)
		case "memory":
			m.Memory, err = d.memory()
		case "status":
			m.Status, err = d.status()
		case "prompt":
			m.Prompt = new(string)
			*m.Prompt, err = d.str(name)
		case "id":
			m.ID, err = d.str(name)
			if err == nil && utf8.RuneCountInString(m.ID) > MaxID {
				err = &SchemaError{name, fmt.Sprintf("must have at most %d characters", MaxID)}
			}
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err != nil {
		return m, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return m, &SchemaError{"message", "must be one object"}
	}
	if !hasText {
		return m, &SchemaError{"text", "is required"}
	}
	return m, nil
}

func (d *decoder) memory() (*Memory, error) {
	m := &Memory{math.NaN(), math.NaN(), math.NaN()}
	err := d.object("memory", func(name string) (err error) {
		switch name {
		case "available_mb":
			m.AvailableMB, err = d.number("memory.available_mb")
		case "percent_used":
			m.PercentUsed, err = d.number("memory.percent_used")
		case "total_mb":
			m.TotalMB, err = d.number("memory.total_mb")
		default:
			err = d.SkipValue()
		}
		return err
	})
	missing := ""
	switch {
	case err != nil:
		return nil, err
	case math.IsNaN(m.AvailableMB):
		missing = "available_mb"
	case math.IsNaN(m.PercentUsed):
		missing = "percent_used"
	case math.IsNaN(m.TotalMB):
		missing = "total_mb"
	default:
		return m, nil
	}
	return nil, &SchemaError{"memory." + missing, "is required"}
}

func (d *decoder) status() (*Status, error) {
	s := new(Status)
	err := d.object("status", func(name string) error {
		switch name {
		case "is_restarting":
			token, err := d.ReadToken()
			if err != nil {
				return err
			}
			if kind := token.Kind(); kind != 't' && kind != 'f' {
				return &SchemaError{"status.is_restarting", "must be true or false"}
			}
			s.IsRestarting = new(token.Bool())
		case "num_restarts":
			n, err := d.number("status.num_restarts")
			if err != nil {
				return err
			}
			s.NumRestarts = &n
		default:
			return d.SkipValue()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// object reads an object, and calls field for each name, which must read the
// value. It replaces the struct decoding of encoding/json, which ignores the
// case of names and takes the last of two equal names. path names the object in
// errors.
func (d *decoder) object(path string, field func(name string) error) error {
	switch token, err := d.ReadToken(); {
	case err != nil && path != "message":
		return broken(path, err)
	case err != nil || token.Kind() != '{':
		return &SchemaError{path, "must be an object"}
	}
	for {
		token, err := d.ReadToken()
		switch {
		case err != nil:
			return broken(path, err)
		case token.Kind() == '}':
			return nil
		}
		if err := field(token.String()); err != nil {
			return broken(path, err)
		}
	}
}

// broken returns err, which is of the object at path, as a SchemaError.
func broken(path string, err error) error {
	if schema, ok := errors.AsType[*SchemaError](err); ok {
		return schema
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &SchemaError{path, "must not name a field twice"}
	}
	return &SchemaError{path, "must be valid JSON"}
}

func (d *decoder) str(path string) (string, error) {
	token, err := d.ReadToken()
	if err == nil && token.Kind() != '"' {
		err = &SchemaError{path, "must be a string"}
	}
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

func (d *decoder) number(path string) (float64, error) {
	value, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	if value.Kind() != '0' {
		return 0, &SchemaError{path, "must be a number"}
	}
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil {
		return 0, &SchemaError{path, "must fit a 64-bit float"}
	}
	return n, nil
}
