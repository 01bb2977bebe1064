package operate

import (
	"net/http"
	"net/http/pprof"
)

// handleProfiles serves the profiles of this process. The path is the usual
// one, but the command line is left out, and no profile is on the public
// listener.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/{profile}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch name := r.PathValue("profile"); name {
		case "profile":
			pprof.Profile(w, r)
		case "trace":
			pprof.Trace(w, r)
		default:
			pprof.Handler(name).ServeHTTP(w, r)
		}
	})
}
