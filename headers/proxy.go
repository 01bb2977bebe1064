package headers

import (
	"maps"
	"net/http"
	"slices"
)

// keeper is the ResponseWriter of a ReverseProxy. Up to Go 1.26, the proxy
// clears the map of headers after it has passed on a 1xx response, and so
// deletes the headers that others have set for the final response
// (go.dev/issue/81207). keeper puts them back before the map is used again.
//
// The proxy uses an http.ResponseController for everything that an
// http.ResponseWriter does not have, so keeper needs only Unwrap.
type keeper struct {
	http.ResponseWriter
	names         []string // of the policy
	kept          http.Header
	informational bool // the last status was 1xx
}

func (m *Middleware) keep(w http.ResponseWriter) *keeper {
	kept := maps.Clone(w.Header())
	for name, values := range kept {
		kept[name] = slices.Clip(values)
	}
	return &keeper{ResponseWriter: w, names: m.names, kept: kept}
}

// Header restores the kept headers if the map has none of them any longer. The
// proxy adds the headers of the final response after that.
func (k *keeper) Header() http.Header {
	h := k.ResponseWriter.Header()
	if k.informational {
		k.informational = false
		for name, values := range k.kept {
			if _, ok := h[name]; !ok {
				h[name] = values
			}
		}
	}
	return h
}

func (k *keeper) WriteHeader(status int) {
	h := k.Header()
	k.informational = status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if !k.informational {
		// Apply in ModifyResponse has set the policy's headers a second time.
		for _, name := range k.names {
			if values := h[name]; len(values) > 1 {
				h[name] = slices.Compact(values)
			}
		}
	}
	k.ResponseWriter.WriteHeader(status)
}

func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }
