package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
)

var errNoMessage = errors.New("the entry is not a message in the form that this relay stores")

// MaxMessage is the length of the longest message that a publisher can send, in
// bytes. It is the default of [wsauth.Config].MessageLimit.
const MaxMessage = 64 << 10

// Check returns an error unless e holds a message in exactly the form that
// viewers get, which a publisher could have sent. Only such an entry may be
// imported, because frames are made of the stored bytes as they are.
func Check(e history.Entry) error {
	_, _, err := parse(e.Data)
	return err
}

// Dated returns e, which passes [Check], without a time after now: neither the
// entry's nor that in the message. A server whose clock was ahead has made it.
func Dated(e history.Entry, now time.Time) history.Entry {
	if e.At.After(now) {
		e.At = now.Round(0)
	}
	if m, at, err := parse(e.Data); err == nil && at.After(now) {
		e.Data = m.Encode(now)
	}
	return e
}

// parse returns the message in data and its time.
func parse(data []byte) (m wire.Message, at time.Time, err error) {
	if m, err = wire.Decode(data); err != nil {
		return m, at, err
	}
	if shortest(&m) > MaxMessage {
		return m, at, &wire.SchemaError{Field: "message", Rule: fmt.Sprintf("must have at most %d bytes", MaxMessage)}
	}
	var stamp struct {
		Timestamp int64 `json:"timestamp"`
	}
	if json.Unmarshal(data, &stamp) != nil {
		return m, at, errNoMessage
	}
	at = time.UnixMilli(stamp.Timestamp)
	if !bytes.Equal(m.Encode(at), data) {
		return m, at, errNoMessage
	}
	return m, at, nil
}

// shortest returns the length of the shortest message with the texts of m. What
// is stored may be up to three times as long as what was sent, because escapes
// are written in another way and bytes that are no UTF-8 are replaced.
func shortest(m *wire.Message) int {
	n := len(`{"text":""}`) + shortestText(m.Text)
	if m.Prompt != nil {
		n += len(`,"prompt":""`) + shortestText(*m.Prompt)
	}
	return n
}

func shortestText(s string) (n int) {
	for _, r := range s {
		switch {
		case r == utf8.RuneError: // one byte that is no UTF-8
			n++
		case r == '"', r == '\\', strings.ContainsRune("\b\f\n\r\t", r):
			n += 2
		case r < ' ':
			n += len(`\u0000`)
		default:
			n += utf8.RuneLen(r)
		}
	}
	return n
}

// Import replaces the history with entries. If one of them does not pass
// [Check], Import returns that error and changes nothing. Every viewer gets the
// new history as a whole.
func (r *Relay) Import(ctx context.Context, entries []history.Entry) error {
	for _, e := range entries {
		if err := Check(e); err != nil {
			return err
		}
	}
	_, err := r.erased(func() error {
		_, err := r.cfg.Log.Replace(ctx, nil, datas(entries)...)
		return err
	})
	r.frames.forget()
	return err
}

// Erase deletes the messages with these sequence numbers from the history, and
// returns how many it has deleted. Viewers get the remaining history as a
// whole, so that no page shows a deleted message any longer. The recording of
// the life that runs has them no longer, either.
func (r *Relay) Erase(ctx context.Context, seqs ...uint64) (n int, err error) {
	more, err := r.erased(func() (err error) {
		n, err = r.cfg.Log.Delete(ctx, seqs...)
		return err
	}, seqs...)
	r.frames.forget()
	return min(n+more, len(seqs)), err // a pin may be of a message that only the recording had
}

// Clear deletes the whole history, and the recording of the life that runs.
func (r *Relay) Clear(ctx context.Context) error {
	_, err := r.erased(func() error {
		_, err := r.cfg.Log.Clear(ctx, nil)
		return err
	})
	r.frames.forget()
	return err
}

// changed reports whether the log has changed though a change has returned err.
func changed(err error) bool { return err == nil || errors.Is(err, history.ErrNotErased) }

// Trimmed drops all frames in memory if the log has dropped entries for their
// age, so that these entries are not sent again. Call it from OnTrim of the
// log's [history.Config].
func (r *Relay) Trimmed(t history.Trim) {
	if t.Reason == history.TrimByAge {
		r.frames.forget()
	}
}
