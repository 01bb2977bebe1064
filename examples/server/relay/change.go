package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
)

var errNoMessage = errors.New("the entry is not a message in the form that this relay stores")

// Check returns an error unless e holds a message in exactly the form that
// viewers get. Only such an entry may be imported, because frames are made of
// the stored bytes as they are.
func Check(e history.Entry) error {
	m, err := wire.Decode(e.Data)
	if err != nil {
		return err
	}
	var stamp struct {
		Timestamp int64 `json:"timestamp"`
	}
	if json.Unmarshal(e.Data, &stamp) != nil || !bytes.Equal(m.Encode(time.UnixMilli(stamp.Timestamp)), e.Data) {
		return errNoMessage
	}
	return nil
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
	_, err := r.cfg.Log.Replace(ctx, nil, datas(entries)...)
	r.frames.forget()
	return err
}

// Erase deletes the messages with these sequence numbers from the history, and
// returns how many it has deleted. Viewers get the remaining history as a
// whole, so that no page shows a deleted message any longer.
func (r *Relay) Erase(ctx context.Context, seqs ...uint64) (int, error) {
	n, err := r.cfg.Log.Delete(ctx, seqs...)
	r.frames.forget()
	return n, err
}

// Clear deletes the whole history.
func (r *Relay) Clear(ctx context.Context) error {
	_, err := r.cfg.Log.Clear(ctx, nil)
	r.frames.forget()
	return err
}
