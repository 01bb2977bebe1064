package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
)

// script is a source of messages, each after a pause.
type script struct {
	lines []line
}

type line struct {
	pause   time.Duration
	message string
}

func (s *script) Next(ctx context.Context) (wire.Message, error) {
	if len(s.lines) == 0 {
		return wire.Message{}, io.EOF
	}
	select {
	case <-time.After(s.lines[0].pause):
	case <-ctx.Done():
		return wire.Message{}, ctx.Err()
	}
	m, err := wire.Decode([]byte(s.lines[0].message))
	s.lines = s.lines[1:]
	return m, err
}

// take returns the messages of a source until its error, as the relay gets them.
func take(ctx context.Context, s publish.Source) (got []string, err error) {
	for {
		m, err := s.Next(ctx)
		if err != nil {
			return got, err
		}
		b, _ := json.Marshal(m)
		got = append(got, string(b))
	}
}

func TestBatch(t *testing.T) {
	const ms = time.Millisecond
	memory := func(n string) string {
		return `"memory":{"available_mb":` + n + `,"percent_used":` + n + `,"total_mb":` + n + `}`
	}
	long := strings.Repeat("x", 8<<10)
	for _, row := range []struct {
		why    string
		window time.Duration
		said   []line
		want   []string
	}{
		{"the words of 100 ms", 100 * ms, []line{{0, `{"text":"a "}`}, {40 * ms, `{"text":"b "}`}, {40 * ms, `{"text":"c "}`}, {40 * ms, `{"text":"d "}`}, {500 * ms, `{"text":"e "}`}},
			[]string{`{"text":"a b c "}`, `{"text":"d "}`, `{"text":"e "}`}},
		{"each alone", 0, []line{{0, `{"text":"a "}`}, {0, `{"text":"b "}`}}, []string{`{"text":"a "}`, `{"text":"b "}`}},
		{"a restart ends a batch, and is none", 100 * ms, []line{{0, `{"text":"a"}`}, {0, `{"text":"","status":{"is_restarting":true,"num_restarts":1}}`}, {0, `{"text":"b"}`}},
			[]string{`{"text":"a"}`, `{"text":"","status":{"is_restarting":true,"num_restarts":1}}`, `{"text":"b"}`}},
		{"a prompt begins a batch", 100 * ms, []line{{0, `{"text":"a"}`}, {0, `{"text":"b","prompt":"p","status":{"num_restarts":1}}`}, {0, `{"text":"c"}`}},
			[]string{`{"text":"a"}`, `{"text":"bc","status":{"num_restarts":1},"prompt":"p"}`}},
		{"the last figures count", 100 * ms, []line{{0, `{"text":"a",` + memory("1") + `}`}, {0, `{"text":"b",` + memory("2") + `}`}, {0, `{"text":"c"}`}},
			[]string{`{"text":"abc",` + memory("2") + `}`}},
		{"not longer than a message may be", 100 * ms, []line{{0, `{"text":"a"}`}, {0, `{"text":"` + long + `"}`}, {0, `{"text":"b"}`}},
			[]string{`{"text":"a"}`, `{"text":"` + long + `"}`, `{"text":"b"}`}},
		{"nothing", 100 * ms, nil, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &publish.Batch{Source: &script{row.said}, Window: row.window}
			got, err := take(t.Context(), b)
			if strings.Join(got, "\n") != strings.Join(row.want, "\n") || !errors.Is(err, io.EOF) {
				t.Errorf("%s: %q, %v", row.why, got, err)
			}
		})
	}
}

// A batch that is under way when the device stops is not lost.
func TestBatchAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		b := &publish.Batch{Source: &script{[]line{{0, `{"text":"a"}`}, {0, `{"text":"b"}`}, {time.Hour, `{"text":"c"}`}}}, Window: time.Minute}
		got, err := take(ctx, b)
		if strings.Join(got, "") != `{"text":"ab"}` || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, %v", got, err)
		}
	})
}
