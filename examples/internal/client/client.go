// Package client makes the HTTP clients of all programs in this module, so that
// none of them carries a secret to a place that only a redirect names.
package client

import "net/http"

// maxHops is the most redirects that one request may follow.
const maxHops = 5

// New returns a copy of base that follows a redirect only if the new URL has
// the scheme, the host and the port of the first one. The answer to a request
// with another redirect is the redirect itself, with its status 3xx. If base is
// nil, the copy is of the zero client.
//
// Without New, a [http.Client] follows redirects to any host. It repeats the
// body there, and it repeats the header Authorization for the same host name on
// another port, or over http after https.
func New(base *http.Client) *http.Client {
	var c http.Client
	if base != nil {
		c = *base
	}
	c.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		first := via[0].URL
		if len(via) > maxHops || next.URL.Scheme != first.Scheme || address(next) != address(via[0]) || next.URL.User != nil {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &c
}

// address returns the host and the port to which r goes.
func address(r *http.Request) [2]string {
	port := r.URL.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[r.URL.Scheme]
	}
	return [2]string{r.URL.Hostname(), port}
}
