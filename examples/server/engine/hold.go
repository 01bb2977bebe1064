package engine

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

var errHold = errors.New("the engine has data of another program in the key of the hold")

// holdKey is the key that holds viewers: the time since when, in nanoseconds
// since 1970.
func (e *Engine) holdKey() string { return e.cfg.Prefix + ":hold" }

// Held returns since when viewers are held, or the zero time.
func (e *Engine) Held(ctx context.Context) (time.Time, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	n, err := client.Do(ctx, client.B().Get().Key(e.holdKey()).Build()).AsInt64()
	switch {
	case rueidis.IsRedisNil(err):
		return time.Time{}, nil
	case errors.Is(err, strconv.ErrSyntax):
		return time.Time{}, errHold
	case err != nil:
		return time.Time{}, err
	}
	return time.Unix(0, n), nil
}

// Hold holds the viewers of all servers since a time, unless they are held. It
// returns since when they are.
func (e *Engine) Hold(ctx context.Context, at time.Time) (time.Time, error) {
	client, err := e.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	// The engine dates messages by whole milliseconds.
	at = at.Truncate(time.Millisecond).Add(-1)
	err = client.Do(ctx, client.B().Set().Key(e.holdKey()).Value(strconv.FormatInt(at.UnixNano(), 10)).Nx().Build()).Error()
	if err == nil {
		return at, nil
	}
	if !rueidis.IsRedisNil(err) {
		return time.Time{}, err
	}
	return e.Held(ctx)
}

// Release releases the viewers of all servers.
func (e *Engine) Release(ctx context.Context) error {
	client, err := e.connect(ctx)
	if err != nil {
		return err
	}
	return client.Do(ctx, client.B().Del().Key(e.holdKey()).Build()).Error()
}
