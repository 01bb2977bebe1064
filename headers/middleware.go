package headers

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
)

// Middleware sets the headers of one [Policy]. It is immutable and safe for
// concurrent use.
type Middleware struct {
	policy Policy
	plain  head     // for a request without TLS
	secure head     // for a request over TLS
	names  []string // every header that either sets or deletes
	nonce  bool
}

// head holds the headers of a response: their names in canonical form, their
// values, the places of nonces, and the headers to delete.
type head struct {
	names  []string
	values []string
	nonces []slot
	drop   []string
}

// slot is a value with nonces: its index, and the texts around the nonces.
type slot struct {
	at    int
	parts []string
}

// New returns the middleware of the policy, or every mistake in the policy,
// joined with [errors.Join], each a [*ConfigError].
func New(p Policy) (*Middleware, error) { return build(p, nil) }

func build(p Policy, inherited []string) (*Middleware, error) {
	if err := errors.Join(p.check()...); err != nil {
		return nil, err
	}
	m := &Middleware{policy: p.clone()}
	drop := slices.Clone(inherited)
	for _, name := range p.Remove {
		drop = append(drop, http.CanonicalHeaderKey(name))
	}
	m.plain = p.head(false, drop)
	m.secure = p.head(true, drop)
	m.nonce = len(m.secure.nonces) > 0
	m.names = slices.Concat(m.plain.names, m.secure.names, drop)
	slices.Sort(m.names)
	m.names = slices.Compact(m.names)
	return m, nil
}

func (p *Policy) head(tls bool, drop []string) head {
	var h head
	for _, l := range p.lines(tls) {
		if l.value == "" {
			continue
		}
		if strings.HasPrefix(l.name, cspHeader) {
			// A source follows a space, which no other text in a policy
			// contains.
			if parts := strings.Split(l.value, " "+string(NonceSource)); len(parts) > 1 {
				h.nonces = append(h.nonces, slot{len(h.values), parts})
			}
		}
		h.names = append(h.names, l.name)
		h.values = append(h.values, l.value)
	}
	for _, name := range drop {
		if !slices.Contains(h.names, name) && !slices.Contains(h.drop, name) {
			h.drop = append(h.drop, name)
		}
	}
	return h
}

// Policy returns a copy of the middleware's policy.
func (m *Middleware) Policy() Policy { return m.policy.clone() }

// Handler returns a handler that sets the headers and then calls next. So they
// are on every response of next, including errors and upgrades, unless next
// replaces or deletes them. The ResponseWriter is passed on unchanged, with its
// Flusher, Hijacker and ReaderFrom. Make this the outermost handler; the
// documentation of the package lists the responses that it does not reach.
//
// Call Handler for an httputil.ReverseProxy itself, even if the proxy is inside
// of another handler that has the headers already. Up to Go 1.26, a proxy
// deletes all headers of the response when the upstream server sends a 1xx,
// such as 103 Early Hints or 100 Continue. For a ReverseProxy, and for no other
// handler, Handler wraps the ResponseWriter in order to keep them.
//
//	mux.Handle("/api/", mw.Handler(proxy))
func (m *Middleware) Handler(next http.Handler) http.Handler {
	if proxy, ok := next.(*httputil.ReverseProxy); ok {
		next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(m.keep(w), r) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.nonce {
			r = withNonce(r)
		}
		m.Apply(w.Header(), r)
		next.ServeHTTP(w, r)
	})
}

// Apply sets the headers in h as [Middleware.Handler] does, and replaces
// existing ones. Use it for code that writes its own response header, such as
// the argument of gorilla's Upgrade, or for a response in
// ReverseProxy.ModifyResponse.
//
// A policy with [NonceSource] uses the nonce in the context of r. If Handler
// was not called for this request, there is none; Apply then sends a new nonce,
// which no page contains.
func (m *Middleware) Apply(h http.Header, r *http.Request) {
	set := &m.plain
	if m.policy.HSTS.covers(r) {
		set = &m.secure
	}
	for _, name := range set.drop {
		delete(h, name)
	}
	// The response gets its own copy of the values, and the capacity of each
	// slice is one. A handler that changes or appends to a value in h cannot
	// change another header or another response.
	values := make([]string, len(set.values))
	copy(values, set.values)
	if len(set.nonces) > 0 {
		nonce := Nonce(r.Context())
		if nonce == "" {
			nonce = newNonce()
		}
		for _, s := range set.nonces {
			values[s.at] = strings.Join(s.parts, " 'nonce-"+nonce+"'")
		}
	}
	for i, name := range set.names {
		h[name] = values[i : i+1 : i+1]
	}
}

// Strip deletes every header from h that the middleware sets or removes. Use it
// in ReverseProxy.ModifyResponse of a proxy that is given to Handler. The proxy
// adds the headers of the upstream server to the existing ones, and a header
// that occurs twice is another policy.
func (m *Middleware) Strip(h http.Header) {
	for _, name := range m.names {
		delete(h, name)
	}
}

// With returns the middleware for a route. The function change edits a copy of
// the policy. Wrap the handler of the route with the new middleware, inside of
// the original one. The new middleware replaces the headers of the original
// one, and deletes those that change has emptied. With returns the same errors
// as [New].
//
//	docs, err := mw.With(func(p *headers.Policy) {
//		p.CacheControl = "public, max-age=3600"
//	})
//	mux.Handle("/docs/", docs.Handler(files))
func (m *Middleware) With(change func(*Policy)) (*Middleware, error) {
	p := m.Policy()
	change(&p)
	return build(p, m.names)
}
