package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/history"
)

// What a publisher can send may be imported, in the form in which it is stored,
// and nothing longer.
func TestCheckObeysTheLimitOfPublishing(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	const frame = len(`{"text":""}`)
	for _, row := range []struct {
		why, sent string // sent is the JSON of the text, repeated up to the limit
	}{
		{"letters", "x"},
		{"three bytes a letter", "€"},
		{"escaped when it is stored", "\u2028"},
		{"bytes that are no UTF-8", "\xff"},
		{"escapes of two bytes", `\n`},
		{"quotes", `\"`},
		{"escapes of six bytes", `\u0001`},
		{"never escaped when it is stored", "<"},
	} {
		n := (relay.MaxMessage - frame) / len(row.sent)
		for extra, ok := range []bool{true, false} {
			raw := `{"text":"` + strings.Repeat(row.sent, n+extra) + `"}`
			if (len(raw) <= relay.MaxMessage) != ok {
				t.Fatalf("%s: %d bytes", row.why, len(raw))
			}
			m, err := wire.Decode([]byte(raw))
			if err != nil {
				t.Fatalf("%s: %v", row.why, err)
			}
			err = relay.Check(history.Entry{Data: m.Encode(now)})
			if (err == nil) != ok {
				t.Errorf("%s: %d bytes sent, %d stored: %v", row.why, len(raw), len(m.Encode(now)), err)
			}
		}
	}
	long := strings.Repeat("p", relay.MaxMessage)
	both := wire.Message{Text: long[:relay.MaxMessage/2], Prompt: &long}
	if relay.Check(history.Entry{Data: both.Encode(now)}) == nil {
		t.Error("a long prompt is accepted")
	}
}

// An imported message has no time after now, neither for the log nor for
// viewers, and is otherwise as it was.
func TestDated(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	m := wire.Message{Text: "a <b>"}
	for _, row := range []struct {
		why        string
		at, stamp  time.Time
		wantAt     time.Time
		wantsStamp time.Time
	}{
		{"earlier", now.Add(-time.Hour), now.Add(-2 * time.Hour), now.Add(-time.Hour), now.Add(-2 * time.Hour)},
		{"now", now, now, now, now},
		{"the entry's is ahead", now.AddDate(20, 0, 0), now, now, now},
		{"the message's is ahead", now, time.UnixMilli(1 << 53), now, now},
		{"before 1970", now, time.UnixMilli(-5), now, time.UnixMilli(-5)},
	} {
		e := history.Entry{Seq: 7, At: row.at, Data: m.Encode(row.stamp)}
		got := relay.Dated(e, now)
		if got.Seq != 7 || !got.At.Equal(row.wantAt) || string(got.Data) != string(m.Encode(row.wantsStamp)) {
			t.Errorf("%s: %v %s", row.why, got.At, got.Data)
		}
		if err := relay.Check(got); err != nil {
			t.Errorf("%s: %v", row.why, err)
		}
	}
}
