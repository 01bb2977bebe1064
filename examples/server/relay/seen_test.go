package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
)

// publishing returns a function that stores a message in log, as the relay
// does.
func publishing(log *history.Log, clears bool) func(history.Position, marks) (history.Position, error) {
	return func(at history.Position, m marks) (history.Position, error) {
		data := stored([]byte(`{"text":"a\nb"}`), m) // a line end in JSON is two characters
		if clears {
			return log.ReplaceAfter(context.Background(), at, data)
		}
		return log.AppendAfter(context.Background(), at, data)
	}
}

func newTestSeen(t *testing.T, log *history.Log) *seen {
	t.Helper()
	s, err := newSeen(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeenIsRecalled(t *testing.T) {
	log, err := history.Open(context.Background(), history.Config{Keep: 100, TrimAt: 2000})
	if err != nil {
		t.Fatal(err)
	}
	before := newTestSeen(t, log)
	id := func(i int) string { return fmt.Sprintf("%s%d", strings.Repeat("é", 32), i) }
	for i := range remembered + 500 {
		before.once(t.Context(), "a", id(i), false, publishing(log, false))
	}
	before.once(t.Context(), "b", "1\n\"{", false, publishing(log, false))
	before.once(t.Context(), "b", "", false, publishing(log, false))
	for _, e := range log.Since(history.Oldest()).Entries {
		if got := string(Shown(e.Data)); got != `{"text":"a\nb"}` {
			t.Fatalf("viewers see %q", got)
		}
	}
	again := func(s *seen, device, id string) (known bool) {
		known = true
		_, _, _ = s.once(t.Context(), device, id, false, func(at history.Position, _ marks) (history.Position, error) {
			known = false
			return at, errors.New("not stored")
		})
		return known
	}
	after := newTestSeen(t, log)
	for _, row := range []struct {
		device, id string
		known      bool
		why        string
	}{
		{"a", id(remembered + 499), true, "the newest"},
		{"a", id(500), true, "the thousandth"},
		{"a", id(499), false, "one more than the bound"},
		{"b", "1\n\"{", true, "an id with special characters"},
		{"b", id(600), false, "another device's"},
		{"b", "", false, "an empty id is never known"},
	} {
		if got := again(after, row.device, row.id); got != row.known {
			t.Errorf("%s: known is %v", row.why, got)
		}
	}

	// A restart signal carries only the newest ids of the messages that it
	// clears.
	if _, _, err := after.once(t.Context(), "b", "r", true, publishing(log, true)); err != nil || log.Stats().Entries != 0 {
		t.Fatal(err, log.Stats().Entries)
	}
	third := newTestSeen(t, log)
	for i, known := range map[int]bool{remembered + 499: true, remembered + 500 - carried: true, remembered + 499 - carried: false} {
		if got := again(third, "a", id(i)); got != known {
			t.Errorf("id %d after a restart signal: known is %v", i, got)
		}
	}
	if !again(third, "b", "r") || !again(third, "b", "1\n\"{") {
		t.Error("the signal's own device is not known again")
	}
}

// A restart signal stays small with any number of devices.
func TestRestartSignalIsBounded(t *testing.T) {
	log, err := history.Open(t.Context(), history.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := newTestSeen(t, log)
	for device := range 20 {
		for i := range carried {
			s.once(t.Context(), fmt.Sprint(device), strings.Repeat("💡", 60)+fmt.Sprint(i), false, func(at history.Position, _ marks) (history.Position, error) { return at, nil })
		}
	}
	var got marks
	s.once(t.Context(), "0", "r", true, func(at history.Position, m marks) (history.Position, error) { got = m; return at, nil })
	if n := len(stored(nil, got)); n > 2*carriedBytes {
		t.Errorf("%d bytes", n)
	}
	newest := 0
	for device, list := range got {
		if device != "0" && len(list) > 0 && strings.HasSuffix(list[len(list)-1], fmt.Sprint(carried-1)) {
			newest++
		}
	}
	if newest == 0 || !slices.Contains(got["0"], "r") {
		t.Errorf("the signal lacks the newest ids: %d devices have theirs", newest)
	}
}
