package llm

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"
)

// maxKinds is how many kinds of problem one outage reports.
const maxKinds = 8

var errTooShort = errors.New("llm: the answer of the model is empty or too short")

// outage is a time in which the model gives no good answer. A model may be
// switched off for a night, so each kind of problem is one line, and the end
// is one. Further tries are lines of the level debug.
type outage struct {
	kinds map[string]bool
	began time.Time
	tries int
}

// note logs a problem, after which the model is asked again in a while.
func (o *outage) note(ctx context.Context, log *slog.Logger, err error, wait time.Duration) {
	o.tries++
	log.Log(ctx, o.level(kind(err)), "the model is asked again until it answers", "error", err, "in", wait.Round(time.Millisecond))
}

// skipped logs that an answer had malformed events.
func (o *outage) skipped(ctx context.Context, log *slog.Logger, events int) {
	log.Log(ctx, o.level("skipped"), "malformed events of the model were skipped", "events", events)
}

func (o *outage) level(kind string) slog.Level {
	if o.kinds == nil {
		o.kinds, o.began = make(map[string]bool), time.Now()
	}
	if o.kinds[kind] || len(o.kinds) >= maxKinds {
		return slog.LevelDebug
	}
	o.kinds[kind] = true
	return slog.LevelWarn
}

// end logs that the model answers again, if it did not.
func (o *outage) end(log *slog.Logger) {
	if o.tries > 0 {
		log.Info("the model answers again", "after", time.Since(o.began).Round(time.Millisecond), "tries", o.tries)
	}
	*o = outage{}
}

// kind returns what a problem has in common with others that need the same
// remedy. All problems of a model that cannot be reached are of one kind,
// whichever part of the way reports them.
func kind(err error) string {
	var status *statusError
	switch {
	case errors.Is(err, errTooShort):
		return "short"
	case errors.Is(err, errMalformed):
		return "malformed"
	case !errors.As(err, &status), status.status >= 500:
		return "away"
	case status.status == 0:
		return status.kind
	}
	return strconv.Itoa(status.status)
}
