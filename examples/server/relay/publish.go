package relay

import (
	"context"
	"errors"
	"time"

	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/wsauth"
)

// The waits between two tries to store a message.
const (
	firstWait = 50 * time.Millisecond
	longWait  = time.Second
)

// authorize returns nil if the session may publish. While the gate cannot
// decide, since it may lack a revocation, authorize waits for as long as
// Config.Patience allows.
func (r *Relay) authorize(session *wsauth.Session) error {
	err := r.permitted(session)
	if err == nil || r.cfg.Patience == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Patience)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		if _, undecided := errors.AsType[*wsauth.UnavailableError](err); !undecided {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		err = r.permitted(session)
	}
}

// permitted returns nil if the session may publish here now.
func (r *Relay) permitted(session *wsauth.Session) error {
	id, _ := session.Identity()
	permission, on := r.needs(id.Subject)
	return session.Authorize(permission, on...)
}

// can reports whether an identity may publish here.
func (r *Relay) can(id *wsauth.Identity) bool {
	permission, on := r.needs(id.Subject)
	return id.Can(permission, on...)
}

// needs returns the permission for publishing here, and its resources. That of
// another device must name the room. A client without an identity has none.
func (r *Relay) needs(device string) (permission string, on []string) {
	switch {
	case r.cfg.Room == "":
		return wsauth.Publish, nil
	case device == "" || device == r.cfg.Room:
		return wsauth.Publish, []string{r.cfg.Room}
	}
	return wsauth.Publish + ":" + r.cfg.Room, nil
}

// store publishes m, unless the device has already published a message with
// this id, and reports whether it has. pos is a position after the message. If
// the log fails, store tries again for as long as Config.Patience allows.
func (r *Relay) store(session *wsauth.Session, m *wire.Message) (pos history.Position, duplicate bool, err error) {
	identity, _ := session.Identity()
	if r.cfg.Patience == 0 {
		return r.storeOnce(context.Background(), identity.Subject, m)
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Patience)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		pos, duplicate, err = r.storeOnce(ctx, identity.Subject, m)
		if err == nil || errors.Is(err, history.ErrTooLarge) || errors.Is(err, history.ErrFinished) || errors.Is(err, history.ErrClosed) {
			return pos, duplicate, err
		}
		if m.ID == "" && errors.Is(err, history.ErrUncertain) {
			return pos, false, err // without an id, it could be published twice
		}
		r.counts.retried.Add(1)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return pos, false, err
		}
	}
}

func (r *Relay) storeOnce(ctx context.Context, device string, m *wire.Message) (pos history.Position, duplicate bool, err error) {
	if m.ID == "" && !m.Restarting() {
		pos, err = r.cfg.Log.Append(ctx, m.Encode(time.Now()))
		return pos, false, err
	}
	pos, duplicate, err = r.seen.once(ctx, device, m.ID, m.Restarting(), func(at history.Position, known marks) (history.Position, error) {
		return r.publish(ctx, at, m, known)
	})
	if duplicate {
		r.counts.duplicates.Add(1)
		r.log.Info("message was published before", "device", device)
	}
	return pos, duplicate, err
}

// publish stores m if the log is at the position at.
func (r *Relay) publish(ctx context.Context, at history.Position, m *wire.Message, known marks) (pos history.Position, err error) {
	data := stored(m.Encode(time.Now()), known)
	if m.Restarting() && r.cfg.Lives.Ended != nil {
		r.look() // else the last words would be missing, since readers are woken a moment later
	}
	switch {
	case !m.Restarting():
		return r.cfg.Log.AppendAfter(ctx, at, data)
	case m.Bare(): // broadcast, but not kept
		pos, err = r.cfg.Log.ReplaceAfter(ctx, at, data)
	default:
		pos, err = r.cfg.Log.ReplaceAfter(ctx, at, data, data)
	}
	if errors.Is(err, history.ErrNotErased) {
		// It is published. The rest is erased later, or an operator must see
		// to it.
		r.log.Error("what a restart signal cleared may still be readable", "error", err)
		err = nil
	}
	r.frames.forget() // cleared messages must not stay in memory either
	return pos, err
}
