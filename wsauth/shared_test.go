package wsauth_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

var errAway = errors.New("engine is away")

// hub is a Shared of one node. Tests say what the other nodes do.
type hub struct {
	mu    sync.Mutex
	err   error // of every call
	full  bool
	calls []string
	ends  []string // what the next Join replaces
	all   []wsauth.SessionInfo
	early wsauth.Reason // if not empty, the session ends before Join returns
	begun chan struct{} // if not nil, Join sends to it, and waits until its context ends
	apply func(wsauth.SharedState)
}

func (h *hub) note(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	return h.err
}

// called returns the calls since the last time, without the random part of IDs.
func (h *hub) called() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := strings.Join(h.calls, "; ")
	h.calls = nil
	return calls
}

func short(id string) string { return id[strings.LastIndex(id, "-")+1:] }

func (h *hub) Revoke(_ context.Context, subject string, before time.Time) error {
	return h.note("revoke %s %d", subject, before.Unix())
}

func (h *hub) Unrevoke(_ context.Context, subject string) (bool, error) {
	return true, h.note("unrevoke %s", subject)
}

func (h *hub) Join(ctx context.Context, s wsauth.SessionInfo, most int, over wsauth.OverLimit) ([]string, bool, error) {
	err := h.note("join %s %s %d %d", short(s.ID), s.Identity.Subject, most, over)
	if h.begun != nil {
		h.begun <- struct{}{}
		<-ctx.Done()
		return nil, false, ctx.Err()
	}
	if h.early != "" {
		h.apply(wsauth.SharedState{Ended: map[string]wsauth.Reason{s.ID: h.early}})
	}
	return h.ends, !h.full, err
}

func (h *hub) Update(s wsauth.SessionInfo) { _ = h.note("update %s %d", short(s.ID), s.EndsAt.Unix()) }
func (h *hub) Leave(id string)             { _ = h.note("leave %s", short(id)) }

func (h *hub) End(_ context.Context, id string) (bool, error) {
	return id == "elsewhere-1", h.note("end %s", short(id))
}

func (h *hub) Sessions(context.Context) ([]wsauth.SessionInfo, error) {
	return h.all, h.note("sessions")
}

func (h *hub) Follow(ctx context.Context, apply func(wsauth.SharedState)) {
	h.mu.Lock()
	h.apply = apply
	h.mu.Unlock()
	<-ctx.Done()
}

// shared returns a gate that runs with a hub and is in touch.
func shared(t *testing.T, cfg wsauth.Config) (*wsauth.Gate, *hub, *record) {
	t.Helper()
	h := &hub{}
	cfg.Shared = h
	gate, _, audit := newGate(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { gate.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	synctest.Wait()
	return gate, h, audit
}

// in brings the gate in touch, as of now.
func (h *hub) in() { h.apply(wsauth.SharedState{AsOf: time.Now()}) }

func TestSharedConfig(t *testing.T) {
	v := newHS256(t, nil)
	for _, row := range []struct {
		stale time.Duration
		want  error
	}{
		{-1, wsauth.ConfigNegative},
		{time.Second - 1, wsauth.ConfigTooShort}, // Follow may be as late as that
		{time.Second, nil},
		{0, nil},
	} {
		if _, err := wsauth.New(wsauth.Config{Verifier: v, MaxStale: row.stale}); !errors.Is(err, row.want) {
			t.Errorf("%v: %v", row.stale, err)
		}
	}
	gate, err := wsauth.New(wsauth.Config{Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	gate.Run(context.Background()) // returns
	if n, err := gate.RevokeContext(t.Context(), "pi-1", now); n != 0 || err != nil {
		t.Error(n, err)
	}
	if was, err := gate.UnrevokeContext(t.Context(), "pi-1"); !was || err != nil {
		t.Error(was, err)
	}
	if found, err := gate.EndContext(t.Context(), "nobody"); found || err != nil {
		t.Error(found, err)
	}
	if list, err := gate.AllSessions(t.Context()); list != nil || err != nil {
		t.Error(list, err)
	}
}

// A node that is out of touch does not authorize, and takes no permission away.
func TestMaxStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, h, audit := shared(t, wsauth.Config{})
		p := connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		p.expect(t, "authenticated while out of touch", "0s authenticated,946688400")
		later := func(name string, err error) {
			t.Helper()
			if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok {
				t.Errorf("%s: %v", name, err)
			}
		}
		token := []byte(strings.Split(lasting("pi-1", time.Hour), `"`)[3])
		verify := func() error {
			_, err := gate.Verify(t.Context(), token, time.Now())
			return err
		}
		later("before the first load", p.Authorize(wsauth.Publish))
		later("before the first load", verify())
		if got := reasonOf(t, p.Authorize("unknown")); got != wsauth.ReasonPermission {
			t.Error("a permission that it does not have:", got)
		}

		done := make(chan error, 1)
		go func() { done <- p.AuthorizeWait(t.Context(), wsauth.Publish) }()
		synctest.Wait()
		h.apply(wsauth.SharedState{}) // says nothing about what is known
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("did not wait:", err)
		default:
		}
		h.in()
		if err := <-done; err != nil {
			t.Error("in touch:", err)
		}
		if err := errors.Join(p.Authorize(wsauth.Publish), verify(), p.AuthorizeWait(t.Context(), wsauth.Publish)); err != nil {
			t.Error("in touch:", err)
		}
		time.Sleep(10 * time.Second)
		if err := p.Authorize(wsauth.Publish); err != nil {
			t.Error("out of touch for MaxStale:", err)
		}
		time.Sleep(time.Nanosecond)
		later("longer than MaxStale", p.Authorize(wsauth.Publish))
		later("longer than MaxStale", verify())

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- p.AuthorizeWait(ctx, wsauth.Publish) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error("its context ended:", err)
		} else {
			later("its context ended", err)
		}

		// The revocation comes before anything is authorized.
		go func() { done <- p.AuthorizeWait(t.Context(), wsauth.Publish) }()
		synctest.Wait()
		audit.lines()
		h.apply(wsauth.SharedState{Revoked: map[string]time.Time{"pi-1": time.Now()}, AsOf: time.Now()})
		if got := reasonOf(t, <-done); got != wsauth.ReasonRevoked {
			t.Error("revoked meanwhile:", got)
		}
		p.expect(t, "revoked", "10.000000001s viewer")
		time.Sleep(11 * time.Second)
		p.say(lasting("pi-1", time.Hour))
		go func() { done <- p.AuthorizeWait(t.Context(), wsauth.Publish) }()
		synctest.Wait()
		p.Session.Close(1000, "")
		if err := <-done; !errors.Is(err, wsauth.ErrSessionClosed) {
			t.Error("its session ended:", err)
		}
	})
}

func TestSharedRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, h, _ := shared(t, wsauth.Config{})
		h.in()
		p, q := connect(t, gate), connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		q.say(lasting("pi-2", time.Hour))
		h.called()
		time.Sleep(time.Second)
		if n, err := gate.RevokeContext(t.Context(), "pi-1", time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Error(n, err)
		}
		if got, want := h.called(), "leave 1; revoke pi-1 946684861"; got != want {
			t.Errorf("called %q, want %q", got, want)
		}
		p.expect(t, "revoked", "0s authenticated,946688400", "1s viewer")
		// In force here if the others cannot be told.
		h.err = errAway
		if n, err := gate.RevokeContext(t.Context(), "pi-2", time.Now()); n != 1 || !errors.Is(err, errAway) {
			t.Error(n, err)
		}
		if got := reasonOf(t, q.Authorize(wsauth.Publish)); got != wsauth.ReasonRevoked {
			t.Error(got)
		}
		if gate.Revoke("pi-2", time.Now()) != 0 {
			t.Error("ended again")
		}
		if was, err := gate.UnrevokeContext(t.Context(), "pi-2"); !was || !errors.Is(err, errAway) {
			t.Error(was, err)
		}
		h.err = nil
		if !gate.Unrevoke("pi-1") {
			t.Error("not known elsewhere either")
		}
		p.say(lasting("pi-1", time.Hour))
		p.expect(t, "taken back", "1s authenticated,946688401")

		// Those of other nodes have the time that they have, however far ahead
		// of this clock.
		far := time.Now().Add(time.Hour)
		h.apply(wsauth.SharedState{Revoked: map[string]time.Time{"pi-1": far}})
		p.expect(t, "revoked elsewhere", "1s viewer")
		h.apply(wsauth.SharedState{Revoked: map[string]time.Time{"pi-1": far.Add(-time.Minute)}})
		time.Sleep(time.Hour - time.Second)
		token := []byte(strings.Split(lasting("pi-1", time.Hour), `"`)[3])
		h.in()
		if _, err := gate.Verify(t.Context(), token, time.Now()); reasonOf(t, err) != wsauth.ReasonRevoked {
			t.Error("went back:", err)
		}
		h.apply(wsauth.SharedState{Revoked: map[string]time.Time{"pi-1": {}}})
		if _, err := gate.Verify(t.Context(), token, time.Now()); err != nil {
			t.Error("taken back elsewhere:", err)
		}
		p.Session.Close(1000, "")
		q.Session.Close(1000, "")
	})
}

func TestSharedSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, h, audit := shared(t, wsauth.Config{MaxSessions: 1, OverLimit: wsauth.OverLimitReplace})
		h.in()
		p, q, r := connect(t, gate), connect(t, gate), connect(t, gate)
		calls := func(name, want string) {
			t.Helper()
			synctest.Wait()
			if got := h.called(); got != want {
				t.Errorf("%s: called %q, want %q", name, got, want)
			}
		}
		p.say(lasting("pi-1", time.Minute))
		calls("authenticated", "join 1 pi-1 1 1")
		p.say(lasting("pi-1", time.Hour))
		calls("refreshed", "update 1 946688400")
		p.say(lasting("pi-1", time.Minute)) // older
		calls("refused", "leave 1")

		p = connect(t, gate)
		p.say(lasting("pi-1", 2*time.Second))
		calls("authenticated", "join 4 pi-1 1 1")
		time.Sleep(2 * time.Second)
		calls("expired", "leave 4")
		p.say(lasting("pi-1", time.Hour))
		calls("authenticated again", "join 4 pi-1 1 1")

		// The others have room, whatever this node has; and the reverse.
		q.say(lasting("pi-1", time.Hour))
		calls("Join has the last word", "join 2 pi-1 1 1")
		h.full = true
		audit.lines()
		r.say(lasting("pi-1", time.Hour))
		calls("no room", "join 3 pi-1 1 1")
		r.expect(t, "no room", "2s error:Authentication failed", "2s close 4401 ")
		if got := audit.lines(); got[0] != "refused sessions pi-1" {
			t.Error(got)
		}
		h.full = false

		// A session that is replaced from here, one from elsewhere, and one
		// that an operator ends elsewhere.
		h.ends = []string{p.ID(), "elsewhere-7"}
		r = connect(t, gate)
		r.say(lasting("pi-1", time.Hour))
		p.heardSince()
		calls("replaced here", "join 5 pi-1 1 1; leave 4")
		h.ends = nil
		h.apply(wsauth.SharedState{Ended: map[string]wsauth.Reason{q.ID(): wsauth.ReasonReplaced, r.ID(): wsauth.ReasonOperator, "elsewhere-8": wsauth.ReasonOperator}})
		for _, row := range []struct {
			p      *peer
			reason wsauth.Reason
			last   string
		}{{q, wsauth.ReasonReplaced, "2s close 4409 replaced"}, {r, wsauth.ReasonOperator, "0s close 1008 "}} {
			synctest.Wait()
			if heard := row.p.heardSince(); len(heard) == 0 || heard[len(heard)-1] != row.last {
				t.Errorf("heard %q, want %q", heard, row.last)
			}
			if got := reasonOf(t, row.p.Authorize(wsauth.Publish)); got != row.reason {
				t.Error(got)
			}
		}
		h.called()

		// Another node may replace a session as soon as it has joined.
		h.early = wsauth.ReasonReplaced
		early := connect(t, gate)
		early.say(lasting("pi-1", time.Hour))
		early.expect(t, "replaced early", "0s close 4409 replaced")
		calls("replaced early", "join 6 pi-1 1 1; leave 6")
		h.full, h.early = true, wsauth.ReasonOperator
		early = connect(t, gate)
		early.say(lasting("pi-1", time.Hour))
		calls("refused", "join 7 pi-1 1 1")
		h.full, h.early = false, ""

		// Out of touch, this node counts its own sessions.
		h.err = errAway
		p, q = connect(t, gate), connect(t, gate)
		p.say(lasting("pi-1", time.Hour))
		q.say(lasting("pi-1", time.Hour))
		p.expect(t, "replaced", "0s authenticated,946688402", "0s close 4409 replaced")
		q.expect(t, "newer", "0s authenticated,946688402")
		calls("out of touch", "join 8 pi-1 1 1; join 9 pi-1 1 1; leave 8")
		if list, err := gate.AllSessions(t.Context()); len(list) != 1 || !errors.Is(err, errAway) {
			t.Error(list, err)
		}
		h.err = nil

		h.all = []wsauth.SessionInfo{
			{ID: "elsewhere-1", Node: "b", Since: time.Now().Add(-time.Hour)},
			{ID: q.ID(), Node: "a"},
			{ID: p.ID(), Node: "a"}, // has ended since
		}
		list, err := gate.AllSessions(t.Context())
		if err != nil || len(list) != 2 || list[0].ID != "elsewhere-1" || list[0].Node != "b" || list[1].ID != q.ID() || list[1].Node != "a" || list[1].Identity.Claims == nil {
			t.Errorf("%+v, %v", list, err)
		}
		h.called()
		found := slices.Collect(func(yield func(bool) bool) {
			for _, id := range []string{"elsewhere-1", "elsewhere-2", q.ID()} {
				ended, err := gate.EndContext(t.Context(), id)
				if err != nil {
					t.Error(err)
				}
				yield(ended)
			}
		})
		if !slices.Equal(found, []bool{true, false, true}) {
			t.Error(found)
		}
		calls("ended", "end 1; end 2; leave 9")
	})
}

// A session that ends does not wait for the other nodes.
func TestSharedJoinHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, h, _ := shared(t, wsauth.Config{})
		h.begun = make(chan struct{}, 1)
		p := connect(t, gate)
		go func() { p.in <- lasting("pi-1", time.Hour) }()
		<-h.begun
		p.Session.Close(1000, "")
		synctest.Wait()
		p.expect(t, "ended", "0s close 1000 ")
		if got, want := h.called(), "join 1 pi-1 0 0; leave 1"; got != want {
			t.Errorf("called %q, want %q", got, want)
		}
		if list := gate.Sessions(); list != nil {
			t.Error(list)
		}
	})
}
