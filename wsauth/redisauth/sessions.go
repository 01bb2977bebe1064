package redisauth

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth"
)

// member is a session of this node.
type member struct {
	id     string
	field  string // its name in the engine: another one for each Join
	device string // the key of its device's sessions; empty if they are not counted
	since  int64  // when it joined, in µs of the engine's clock
	info   string // sealed
}

// roster are the sessions of this node, and what the engine must still be told
// of them.
type roster struct {
	mu      sync.Mutex
	mine    map[string]*member // by ID
	fields  map[string]*member // the same, by field
	left    map[string]*member // by field: those that must be removed
	changed map[string]*member // by field: those with another info
	running bool               // a goroutine tells the engine
	joins   uint64
	closed  bool
}

func (r *roster) init() {
	r.mine, r.fields = make(map[string]*member), make(map[string]*member)
	r.left, r.changed = make(map[string]*member), make(map[string]*member)
}

// add adds a session, and returns the fields of others of its device that have
// left.
func (r *roster) add(m *member) (left []string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, false
	}
	r.mine[m.id], r.fields[m.field] = m, m
	for field, other := range r.left {
		if other.device == m.device {
			left = append(left, field)
		}
	}
	return left, true
}

// drop removes a session that the engine does not have.
func (r *roster) drop(m *member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mine, m.id)
	delete(r.fields, m.field)
}

// joined notes when a session joined.
func (r *roster) joined(m *member, since int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.since = since
}

// all returns copies of the sessions of this node.
func (r *roster) all() []member {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]member, 0, len(r.mine))
	for _, m := range r.mine {
		list = append(list, *m)
	}
	return list
}

// idOf returns the ID of the session of this node in a field.
func (r *roster) idOf(field string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.fields[field]; m != nil {
		return m.id, true
	}
	return "", false
}

// close ends the roster.
func (r *roster) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// farewell returns the commands that remove all sessions.
func (r *roster) farewell(c rueidis.Client) (farewell []rueidis.Completed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range []map[string]*member{r.fields, r.left} {
		for field, m := range list {
			if m.device != "" {
				farewell = append(farewell, c.B().Hdel().Key(m.device).Field(field).Build())
			}
		}
	}
	r.init()
	return farewell
}

// described is what the engine keeps of a session, sealed. Times are in µs, and
// 0 is the zero time.
type described struct {
	Node        string     `json:"n,omitempty"`
	Addr        netip.Addr `json:"a"`
	PeerID      string     `json:"pi,omitempty"`
	Subject     string     `json:"s"`
	Issuer      string     `json:"i,omitempty"`
	TokenID     string     `json:"t,omitempty"`
	KeyID       string     `json:"k,omitempty"`
	Role        string     `json:"r,omitempty"`
	Permissions []string   `json:"p,omitempty"`
	IssuedAt    int64      `json:"ia,omitempty"`
	ExpiresAt   int64      `json:"e,omitempty"`
	Since       int64      `json:"si,omitempty"`
	EndsAt      int64      `json:"en,omitempty"`
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n)
}

// describe returns s as the engine keeps it in a field.
func (a *Authority) describe(field string, s *wsauth.SessionInfo) string {
	id := &s.Identity
	return a.seal.close(kindSession, field, encode(described{
		a.cfg.Node, s.Peer.Addr, s.Peer.ID, id.Subject, id.Issuer, id.TokenID, id.KeyID, id.Role, id.Permissions,
		micro(id.IssuedAt), micro(id.ExpiresAt), micro(s.Since), micro(s.EndsAt),
	}))
}

// info returns the session in a field.
func (a *Authority) info(field, sealed string) (wsauth.SessionInfo, error) {
	var d described
	if err := a.seal.open(kindSession, field, sealed, &d); err != nil {
		return wsauth.SessionInfo{}, err
	}
	return wsauth.SessionInfo{
		ID: idIn(field), Node: d.Node, Peer: wsauth.Peer{Addr: d.Addr, ID: d.PeerID},
		Identity: wsauth.Identity{
			Subject: d.Subject, Issuer: d.Issuer, TokenID: d.TokenID, KeyID: d.KeyID, Role: d.Role, Permissions: d.Permissions,
			IssuedAt: fromMicro(d.IssuedAt), ExpiresAt: fromMicro(d.ExpiresAt),
		},
		Since: fromMicro(d.Since), EndsAt: fromMicro(d.EndsAt),
	}, nil
}

// idIn returns the ID of the session in a field, ID:NUMBER.
func idIn(field string) string {
	if i := strings.LastIndexByte(field, ':'); i >= 0 {
		return field[:i]
	}
	return field
}

// deviceKey returns the key of the sessions of a subject of an issuer.
func (a *Authority) deviceKey(issuer, subject string) string {
	return a.keys.tag + "s:" + a.seal.name(issuer, subject)
}

// Join implements [wsauth.Shared]. All nodes must count to the same number, or
// not at all.
func (a *Authority) Join(ctx context.Context, s wsauth.SessionInfo, most int, over wsauth.OverLimit) (replaced []string, ok bool, err error) {
	a.roster.mu.Lock()
	a.roster.joins++
	m := &member{id: s.ID, field: s.ID + ":" + strconv.FormatUint(a.roster.joins, 36), since: a.engineNow()}
	a.roster.mu.Unlock()
	m.info = a.describe(m.field, &s)
	if most > 0 {
		m.device = a.deviceKey(s.Identity.Issuer, s.Identity.Subject)
	}
	left, ok := a.roster.add(m)
	if !ok {
		return nil, false, errClosed
	}
	if err := a.ready(); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	replace, device := "", m.device
	if over == wsauth.OverLimitReplace {
		replace = "1"
	}
	if device == "" {
		device = a.keys.tag + "s:" // not used
	}
	args := append([]string{
		rand.Text(), a.node, strconv.FormatInt(a.cfg.Lease.Milliseconds(), 10), m.field, strconv.Itoa(most), replace, m.info,
	}, left...)
	r, err := a.ask(ctx, joinScript, []string{a.keys.head, a.keys.events, a.keys.nodes, device, a.keys.own, a.keys.ends}, args...)
	if err != nil {
		return nil, false, err
	}
	reply, err := r.AsStrSlice()
	if err != nil || len(reply) < 3 {
		return nil, false, errReply
	}
	since, err := strconv.ParseInt(reply[2], 10, 64)
	if err != nil {
		return nil, false, errReply
	}
	if reply[1] != "" {
		a.lapsed.Store(true)
	}
	if reply[0] == "FULL" {
		a.roster.drop(m)
		return nil, false, nil
	}
	a.roster.joined(m, since)
	for _, field := range reply[3:] {
		replaced = append(replaced, idIn(field))
	}
	return replaced, true, nil
}

// Update implements [wsauth.Shared].
func (a *Authority) Update(s wsauth.SessionInfo) {
	a.roster.mu.Lock()
	defer a.roster.mu.Unlock()
	if m := a.roster.mine[s.ID]; m != nil {
		m.info = a.describe(m.field, &s)
		a.roster.changed[m.field] = m
		a.start()
	}
}

// Leave implements [wsauth.Shared].
func (a *Authority) Leave(sessionID string) {
	a.roster.mu.Lock()
	defer a.roster.mu.Unlock()
	if m := a.roster.mine[sessionID]; m != nil {
		delete(a.roster.mine, m.id)
		delete(a.roster.fields, m.field)
		delete(a.roster.changed, m.field)
		a.roster.left[m.field] = m
		a.start()
	}
}

// start tells the engine what has changed in the roster, whose lock the caller
// holds.
func (a *Authority) start() {
	r := &a.roster
	if r.running || r.closed || len(r.left)+len(r.changed) == 0 || a.ready() != nil {
		return // when the engine is back, Follow calls resume
	}
	r.running = true
	a.work.Go(a.run)
}

// resume starts what start could not while the engine was away.
func (a *Authority) resume() {
	a.roster.mu.Lock()
	defer a.roster.mu.Unlock()
	a.start()
}

// run tells the engine what has changed in the roster, until nothing is left,
// or the engine does not answer.
func (a *Authority) run() {
	r := &a.roster
	for {
		r.mu.Lock()
		var batch []*member
		var commands []rueidis.Completed
		for field, m := range r.left {
			if len(batch) < atOnce/3 {
				batch = append(batch, m)
				commands = append(commands, a.forget(a.cfg.Client, field, m.device)...)
			}
		}
		for field, m := range r.changed {
			if len(batch) < atOnce/3 {
				batch = append(batch, m)
				commands = append(commands, a.cfg.Client.B().Hset().Key(a.keys.own).FieldValue().FieldValue(field, m.info).Build())
				delete(r.changed, field) // a change that comes meanwhile is told again
			}
		}
		if len(batch) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		err := a.pipeline(a.ctx, a.cfg.Client, commands)
		r.mu.Lock()
		for _, m := range batch {
			if err == nil {
				delete(r.left, m.field)
			} else if r.fields[m.field] != nil {
				r.changed[m.field] = m
			}
		}
		if err != nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// forget returns the commands that remove a session of this node.
func (a *Authority) forget(c rueidis.CoreClient, field, device string) (commands []rueidis.Completed) {
	if device != "" {
		commands = append(commands, c.B().Hdel().Key(device).Field(field).Build())
	}
	return append(commands,
		c.B().Hdel().Key(a.keys.own).Field(field).Build(),
		c.B().Hdel().Key(a.keys.ends).Field(field).Build())
}

// declare tells the engine of all sessions of this node: it may have forgotten
// them after a failover, or while this node was paused.
func (a *Authority) declare(ctx context.Context, c rueidis.CoreClient) error {
	var commands []rueidis.Completed
	for _, m := range a.roster.all() {
		commands = append(commands, c.B().Hset().Key(a.keys.own).FieldValue().FieldValue(m.field, m.info).Build())
		if m.device != "" {
			commands = append(commands,
				c.B().Hset().Key(m.device).FieldValue().FieldValue(m.field, a.node+" "+strconv.FormatInt(m.since, 10)).Build(),
				c.B().Pexpire().Key(m.device).Milliseconds(deviceTTL.Milliseconds()).Build())
		}
	}
	if len(commands) > 0 {
		commands = append(commands, c.B().Pexpire().Key(a.keys.own).Milliseconds(2*a.cfg.Lease.Milliseconds()).Build())
	}
	return a.pipeline(ctx, c, commands)
}

// deviceTTL is the life of a device's sessions, if no node declares them again.
// A node does so after half of it.
const deviceTTL = 24 * time.Hour

// End implements [wsauth.Shared].
func (a *Authority) End(ctx context.Context, sessionID string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	field, err := a.fieldOf(ctx, sessionID)
	if err != nil || field == "" {
		return false, err
	}
	if _, err := a.ask(ctx, finishScript, []string{a.keys.head, a.keys.events, a.keys.ends}, rand.Text(), field); err != nil {
		return false, err
	}
	return true, nil
}

// fieldOf returns the field of a session, and an empty text if no node has it.
func (a *Authority) fieldOf(ctx context.Context, sessionID string) (string, error) {
	nodes, err := a.living(ctx)
	if err != nil {
		return "", err
	}
	var commands []rueidis.Completed
	for _, node := range nodes {
		commands = append(commands, a.cfg.Client.B().Hkeys().Key(a.keys.of(node)).Build())
	}
	for _, r := range a.cfg.Client.DoMulti(ctx, commands...) {
		fields, err := r.AsStrSlice()
		if err != nil {
			return "", failed(err)
		}
		for _, field := range fields {
			if idIn(field) == sessionID {
				return field, nil
			}
		}
	}
	return "", nil
}

// living returns the nodes that have a lease.
func (a *Authority) living(ctx context.Context) ([]string, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	r, err := a.ask(ctx, livingScript, []string{a.keys.nodes})
	if err != nil {
		return nil, err
	}
	return r.AsStrSlice()
}

// Sessions implements [wsauth.Shared].
func (a *Authority) Sessions(ctx context.Context) (list []wsauth.SessionInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	nodes, err := a.living(ctx)
	if err != nil {
		return nil, err
	}
	var commands []rueidis.Completed
	for _, node := range nodes {
		commands = append(commands, a.cfg.Client.B().Hgetall().Key(a.keys.of(node)).Build())
	}
	for _, r := range a.cfg.Client.DoMulti(ctx, commands...) {
		fields, err := r.AsStrMap()
		if err != nil {
			return nil, failed(err)
		}
		for field, sealed := range fields {
			s, err := a.info(field, sealed)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	}
	return list, nil
}
