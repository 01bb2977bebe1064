package headers

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// A Middleware sets the headers of one Policy. It is immutable and safe for concurrent use.
type Middleware struct {
	policy Policy
	plain  head     // for a request that came without TLS
	secure head     // for one that came with it
	names  []string // everything that either may set or delete
	nonce  bool
}

// head is what a response gets: names in canonical form, values beside them, and where nonces belong.
type head struct {
	names  []string
	values []string
	nonces []slot
	drop   []string
}

// slot is a value that holds nonces: the texts around them.
type slot struct {
	at    int
	parts []string
}

// New returns the middleware of the policy, or every mistake in it, joined; each is a *ConfigError.
func New(p Policy) (*Middleware, error) { return build(p, nil) }

func build(p Policy, inherited []string) (*Middleware, error) {
	if err := errors.Join(p.check()...); err != nil {
		return nil, err
	}
	p.ReportingEndpoints = slices.Clone(p.ReportingEndpoints)
	p.Remove = slices.Clone(p.Remove)
	m := &Middleware{policy: p, nonce: p.CSP.has(NonceSource) || p.CSPReportOnly.has(NonceSource)}
	drop := slices.Clone(inherited)
	for _, name := range p.Remove {
		drop = append(drop, http.CanonicalHeaderKey(name))
	}
	m.plain = p.head(false, drop)
	m.secure = p.head(true, drop)
	m.names = slices.Concat(m.plain.names, m.secure.names, drop)
	slices.Sort(m.names)
	m.names = slices.Compact(m.names)
	return m, nil
}

func (p *Policy) head(tls bool, drop []string) head {
	all := p.lines()
	csp := p.CSP
	if tls {
		all = append(all, line{hstsHeader, p.HSTS.value()})
	} else {
		csp = csp.Without("upgrade-insecure-requests")
	}
	all = append(all, line{cspHeader, csp.String()}, line{reportOnlyHeader, p.CSPReportOnly.String()})

	var h head
	for _, l := range all {
		if l.value == "" {
			continue
		}
		if l.name == cspHeader || l.name == reportOnlyHeader {
			// A source follows a space, which no other text in a policy contains.
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

// Policy returns a copy of the policy that the middleware was made from.
func (m *Middleware) Policy() Policy {
	p := m.policy
	p.ReportingEndpoints = slices.Clone(p.ReportingEndpoints)
	p.Remove = slices.Clone(p.Remove)
	return p
}

// Handler sets the headers before it calls next, so they stand on everything that next answers, errors and upgrades
// included, unless next replaces or deletes them. The ResponseWriter is passed on as it is: Flusher, Hijacker and
// ReaderFrom stay what they were. Let it be the outermost of all handlers; what it cannot reach is listed in the
// package's documentation.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.nonce {
			r = withNonce(r)
		}
		m.Apply(w.Header(), r)
		next.ServeHTTP(w, r)
	})
}

// Apply sets the headers in h as Handler does, for code that writes a head of its own: the header argument of gorilla's
// Upgrade, a response in ReverseProxy.ModifyResponse. It replaces what stood there.
//
// A policy with NonceSource takes the nonce from the request's context. Where Handler was not passed there is none, and
// the nonce sent is one that no page knows.
func (m *Middleware) Apply(h http.Header, r *http.Request) {
	set := &m.plain
	if m.policy.HSTS.Always || r.TLS != nil {
		set = &m.secure
	}
	for _, name := range set.drop {
		delete(h, name)
	}
	// One copy for this response alone, each header's slice capped at its own element: whoever changes or appends to a
	// value in h reaches neither the neighbour nor the next response.
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

// Strip deletes from h every header that the middleware sets or removes. It is for ReverseProxy.ModifyResponse below
// Handler: the proxy adds the upstream's headers to those that are there, and a policy that stands twice is another
// policy.
func (m *Middleware) Strip(h http.Header) {
	for _, name := range m.names {
		delete(h, name)
	}
}

// With derives the middleware of a route: change edits a copy of the policy. The route's handler is wrapped by the
// derived middleware below the original one; what the change emptied is removed there, the rest replaced.
//
//	docs, err := mw.With(func(p *headers.Policy) { p.CacheControl = "public, max-age=3600" })
//	mux.Handle("/docs/", docs.Handler(files))
func (m *Middleware) With(change func(*Policy)) (*Middleware, error) {
	p := m.Policy()
	change(&p)
	return build(p, m.names)
}
