package certificate

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Redirect answers plain HTTP with a redirect to https. It redirects only to a
// host that the certificate is issued for, whatever Host the request names;
// another host gets a 421. The port is the port of the allowed origin with that
// host, because only the origin shows a forwarded port. If no origin has that
// host, the port is port, at which the server listens.
func (c *Reloader) Redirect(origins []string, port string) http.Handler {
	return redirect(c.Covers, origins, port)
}

func redirect(covers func(host string) bool, origins []string, port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			// A redirect would hide that the client sent data in the clear, so
			// the client gets an error.
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Method not allowed", http.StatusMethodNotAllowed)
			return
		}
		asked := url.URL{Host: r.Host}
		host := asked.Hostname()
		if !covers(host) {
			http.Error(w, "Misdirected request", http.StatusMisdirectedRequest)
			return
		}
		// The URL is built from its parts, because the target of a request may
		// lack the slash after the host.
		to := url.URL{Scheme: "https", Host: hostAndPort(host, publicPort(origins, host, port)), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		if to.Path == "" {
			to.Path = "/"
		}
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// publicPort returns the port at which browsers reach host.
func publicPort(origins []string, host, port string) string {
	for _, o := range origins {
		if u, err := url.Parse(o); err == nil && u.Scheme == "https" && strings.EqualFold(u.Hostname(), host) {
			return u.Port()
		}
	}
	return port
}

// hostAndPort returns host with port, or host alone if port is the default of
// https.
func hostAndPort(host, port string) string {
	if port != "" && port != "443" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
