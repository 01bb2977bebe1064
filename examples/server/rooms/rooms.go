// Package rooms holds the conversations of a server: one without a name, or
// several with names. Each has a log and a relay of its own.
package rooms

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/history"
)

// Room is one conversation. The server sets Log, and then the relay with Serve,
// before it serves. Until then, Relay and Trimmed alone may be called.
type Room struct {
	Name string // empty if it is the only one
	Log  *history.Log

	relay  atomic.Pointer[relay.Relay]
	others atomic.Int64 // viewers on other servers
}

// Serve sets the relay.
func (r *Room) Serve(relay *relay.Relay) { r.relay.Store(relay) }

// Relay returns the relay, or nil before [Room.Serve].
func (r *Room) Relay() *relay.Relay { return r.relay.Load() }

// Trimmed tells the relay what the log has dropped. The log may do so before
// there is a relay, which has then delivered nothing.
func (r *Room) Trimmed(t history.Trim) {
	if relay := r.Relay(); relay != nil {
		relay.Trimmed(t)
	}
}

// Watching returns how many watch, here now and on other servers as of the last
// time that they told it.
func (r *Room) Watching() int { return r.Relay().Watching() + int(r.others.Load()) }

// Elsewhere sets how many watch on other servers.
func (r *Room) Elsewhere(n int) { r.others.Store(int64(n)) }

// Rooms are all conversations of a server. The set does not change. It is safe
// for concurrent use when all rooms have their relays.
type Rooms struct {
	all     []*Room
	byName  map[string]*Room
	leaving atomic.Int64
}

// New returns the rooms of these names, in their order, without logs and
// relays. Without names, it is one conversation without a name.
func New(names []string) *Rooms {
	if len(names) == 0 {
		names = []string{""}
	}
	rs := &Rooms{byName: make(map[string]*Room, len(names))}
	for _, name := range names {
		r := &Room{Name: name}
		rs.all = append(rs.all, r)
		rs.byName[name] = r
	}
	return rs
}

// Ready reports whether all rooms have their relays.
func (rs *Rooms) Ready() bool { return rs.all[len(rs.all)-1].Relay() != nil }

// All returns the rooms, in the order of their names in the configuration. Do
// not change the slice.
func (rs *Rooms) All() []*Room { return rs.all }

// Named reports whether there are rooms, and not one conversation.
func (rs *Rooms) Named() bool { return rs.all[0].Name != "" }

// Get returns the room of this name, or nil. The name of the only conversation
// is empty.
func (rs *Rooms) Get(name string) *Room { return rs.byName[name] }

// Names returns the names of the rooms as [Names] writes them.
func (rs *Rooms) Names() string {
	names := make([]string, len(rs.all))
	for i, r := range rs.all {
		names[i] = r.Name
	}
	return Names(names)
}

// Names writes names for a message, separated by commas: ten at most, and then
// that there are more.
func Names(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// Refuse answers a request that names no room, with a status and the reason.
type Refuse func(w http.ResponseWriter, status int, why string)

// Plain is a [Refuse] that answers with plain text, which no cache stores: a
// restart can bring the room.
func Plain(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, why, status)
}

// Of returns the room that a request names in its parameter room. Otherwise it
// refuses the request, with 404, or 400 if the parameter is missing, and
// returns nil.
func (rs *Rooms) Of(w http.ResponseWriter, req *http.Request, refuse Refuse) *Room {
	names := req.URL.Query()["room"]
	name := strings.Join(names, ",")
	switch r := rs.Get(name); {
	case r != nil && len(names) < 2:
		return r
	case !rs.Named():
		refuse(w, http.StatusNotFound, "there are no rooms: leave the parameter room out")
	case name == "":
		refuse(w, http.StatusBadRequest, "name a room, as in ?room="+rs.all[0].Name)
	default:
		refuse(w, http.StatusNotFound, "there is no such room")
	}
	return nil
}

// Handler returns a handler that passes each request on to the handler of its
// room, see [Rooms.Of]. It calls handler once for each room.
func (rs *Rooms) Handler(handler func(*Room) http.Handler, refuse Refuse) http.Handler {
	handlers := make(map[*Room]http.Handler, len(rs.all))
	for _, r := range rs.all {
		handlers[r] = handler(r)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r := rs.Of(w, req, refuse); r != nil {
			handlers[r].ServeHTTP(w, req)
		}
	})
}

// Watching returns how many watch in all rooms, see [Room.Watching].
func (rs *Rooms) Watching() int { return rs.sum((*Room).Watching) }

// Here returns how many watch in all rooms on this server.
func (rs *Rooms) Here() int { return rs.sum(func(r *Room) int { return r.Relay().Watching() }) }

// Len returns how many connections are open in all rooms.
func (rs *Rooms) Len() int { return rs.sum(func(r *Room) int { return r.Relay().Len() }) }

// Disconnect is [relay.Relay.Disconnect] in all rooms.
func (rs *Rooms) Disconnect(match func(netip.Addr) bool) int {
	return rs.sum(func(r *Room) int { return r.Relay().Disconnect(match) })
}

func (rs *Rooms) sum(of func(*Room) int) (n int) {
	for _, r := range rs.all {
		n += of(r)
	}
	return n
}

// Stats returns the sums over all rooms.
func (rs *Rooms) Stats() (s relay.Stats, log history.Stats) {
	s = rs.all[0].Relay().Stats()
	log = rs.all[0].Log.Stats()
	for _, r := range rs.all[1:] {
		s.Add(r.Relay().Stats())
		add(&log, r.Log.Stats())
	}
	return s, log
}

func add(s *history.Stats, more history.Stats) {
	s.Entries += more.Entries
	s.Bytes += more.Bytes
	if s.Oldest.IsZero() || !more.Oldest.IsZero() && more.Oldest.Before(s.Oldest) {
		s.Oldest = more.Oldest
	}
	if more.Latest.After(s.Latest) {
		s.Latest = more.Latest
	}
	s.Waiting += more.Waiting
	s.Wakings += more.Wakings
	s.Appended += more.Appended
	s.Replaced += more.Replaced
	s.Deleted += more.Deleted
	s.TrimmedByCount += more.TrimmedByCount
	s.TrimmedByBytes += more.TrimmedByBytes
	s.TrimmedByAge += more.TrimmedByAge
	s.TrimmedByWeight += more.TrimmedByWeight
}

// Leaving returns how many viewers leave together because of [Rooms.Shutdown].
// It is the [relay.Config].Leaving of each relay.
func (rs *Rooms) Leaving() int { return int(rs.leaving.Load()) }

// Shutdown is [relay.Relay.Shutdown] in all rooms at once.
func (rs *Rooms) Shutdown(ctx context.Context) error {
	rs.leaving.Store(int64(rs.Here()))
	errs := make([]error, len(rs.all))
	var done sync.WaitGroup
	for i, r := range rs.all {
		done.Go(func() { errs[i] = r.Relay().Shutdown(ctx) })
	}
	done.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i] // that of ctx
	}
	return nil
}

// Close closes the logs that are open.
func (rs *Rooms) Close() error {
	var errs []error
	for _, r := range rs.all {
		if r.Log != nil {
			errs = append(errs, r.Log.Close())
		}
	}
	return errors.Join(errs...)
}
