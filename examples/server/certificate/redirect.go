package certificate

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Redirect answers plain HTTP with the way to https. It sends nobody to a host
// for which the certificate does not speak, whatever the request's Host says.
// The port is that of the allowed origin with that host, because only it knows
// of a port that is forwarded; else the one that the server listens on.
func (c *Reloader) Redirect(origins []string, port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			// Whoever sends something in the clear should notice.
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
			return
		}
		asked := url.URL{Host: r.Host}
		host := asked.Hostname()
		if !c.Covers(host) {
			http.Error(w, "Misdirected request", http.StatusMisdirectedRequest)
			return
		}
		// Made of parts, since a request's target may lack the slash that ends
		// the host.
		to := url.URL{Scheme: "https", Host: hostAndPort(host, publicPort(origins, host, port)), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		if to.Path == "" {
			to.Path = "/"
		}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// publicPort is the port that browsers reach host at.
func publicPort(origins []string, host, port string) string {
	for _, o := range origins {
		if u, err := url.Parse(o); err == nil && u.Scheme == "https" && strings.EqualFold(u.Hostname(), host) {
			return u.Port()
		}
	}
	return port
}

// hostAndPort is host with port, unless that is what https means anyway.
func hostAndPort(host, port string) string {
	if port != "" && port != "443" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
