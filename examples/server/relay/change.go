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

var errNoMessage = errors.New("it is no message as this relay stores it")

// Check refuses what must not be put into the relay's log from outside: all but
// a message exactly as viewers see it. Frames are made of stored bytes as they
// are.
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

// Import puts entries, all of which pass [Check], in the place of the history.
// Every viewer gets it as a whole.
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

// Erase takes messages out of the history, by their sequence numbers, and
// returns how many there were. Viewers get what is left as a whole, so that
// pages which show an erased one do no longer.
func (r *Relay) Erase(ctx context.Context, seqs ...uint64) (int, error) {
	n, err := r.cfg.Log.Delete(ctx, seqs...)
	r.frames.forget()
	return n, err
}

// Clear erases the whole history.
func (r *Relay) Clear(ctx context.Context) error {
	_, err := r.cfg.Log.Clear(ctx, nil)
	r.frames.forget()
	return err
}
