package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
)

// reads gives one of its texts for each read, and then the error.
type reads struct {
	texts []string
	err   error
}

func (r *reads) Read(b []byte) (int, error) {
	if len(r.texts) == 0 {
		return 0, r.err
	}
	n := copy(b, r.texts[0])
	if r.texts[0] = r.texts[0][n:]; r.texts[0] == "" {
		r.texts = r.texts[1:]
	}
	return n, nil
}

func noFigures() *wire.Memory { return nil }

// drain returns the texts of all messages, and the error that ended them.
func drain(in *input) (texts []string, err error) {
	for {
		m, err := in.Next(context.Background())
		if err != nil {
			return texts, err
		}
		texts = append(texts, m.Text)
	}
}

func TestInput(t *testing.T) {
	broken := errors.New("broken")
	long := strings.Repeat("word ", 1000)
	for _, row := range []struct {
		why  string
		in   []string
		err  error
		want []string
	}{
		{"nothing", nil, io.EOF, nil},
		{"words, as they come", []string{"one ", "two ", "three"}, io.EOF, []string{"one ", "two ", "three"}},
		{"lines", []string{"one\ntwo\n", "three\n"}, io.EOF, []string{"one\ntwo\n", "three\n"}},
		{"a character in two reads", []string{"caf\xc3", "\xa9 ", "\xf0\x9f", "\x92", "\xa1"}, io.EOF, []string{"caf", "é ", "💡"}},
		{"half a character at the end", []string{"caf\xc3"}, io.EOF, []string{"caf", "\uFFFD"}},
		{"no text", []string{"a\xff\xfeb"}, io.EOF, []string{"a\uFFFDb"}},
		{"an error after text", []string{"one "}, broken, []string{"one "}},
		{"more than a message may have", []string{long}, io.EOF, slices.Repeat([]string{strings.Repeat("word ", 204)}, 4)},
		{"one long word", []string{strings.Repeat("é", 1000)}, io.EOF, []string{strings.Repeat("é", 512), strings.Repeat("é", 488)}},
	} {
		texts, err := drain(&input{from: &reads{slices.Clone(row.in), row.err}, figures: noFigures})
		if len(texts) > len(row.want) && row.why == "more than a message may have" {
			texts = texts[:len(row.want)] // the rest is as long as it must be
		}
		if !slices.Equal(texts, row.want) || !errors.Is(err, row.err) {
			t.Errorf("%s: %q (%v), want %q", row.why, texts, err, row.want)
		}
	}
}

func FuzzInput(f *testing.F) {
	f.Add("one two", 3)
	f.Add("caf\xc3\xa9 \xff 💡", 1)
	f.Add(strings.Repeat("long ", 3000), 7000)
	f.Fuzz(func(t *testing.T, text string, size int) {
		var from io.Reader = strings.NewReader(text)
		if size%2 == 0 {
			from = iotest.OneByteReader(from)
		}
		texts, err := drain(&input{from: from, figures: noFigures})
		readable := func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\uFFFD", "") }
		if got := strings.Join(texts, ""); err != io.EOF || readable(got) != readable(text) {
			t.Errorf("%q is published as %q (%v)", text, got, err)
		}
		for _, piece := range texts {
			if piece == "" || len(piece) > maxInput {
				t.Errorf("a message of %d bytes", len(piece))
			}
		}
	})
}

// With a prompt the text is a life, and the figures come once a second.
func TestInputIsALife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		in := &input{from: r, prompt: "Think.", restarts: 4, figures: func() *wire.Memory { return &wire.Memory{PercentUsed: 1} }}
		m, err := in.Next(t.Context())
		if err != nil || !m.Restarting() || *m.Status.NumRestarts != 4 || m.Text != "" || m.Prompt != nil {
			t.Errorf("the life begins with %+v (%v)", m, err)
		}
		for i, figures := range []bool{true, false, false, true} {
			go w.Write([]byte("word "))
			m, err := in.Next(t.Context())
			if err != nil || m.Text != "word " || (m.Memory != nil) != figures || (m.Prompt != nil) != (i == 0) || m.Restarting() {
				t.Errorf("message %d is %+v (%v)", i, m, err)
			}
			time.Sleep(figuresEvery/2 - time.Millisecond)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := in.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("without text, a device that stops gets %v", err)
		}
		w.Close()
		if _, err := in.Next(t.Context()); err != io.EOF {
			t.Errorf("the input ends with %v", err)
		}
	})
}
