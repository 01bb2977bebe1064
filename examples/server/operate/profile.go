package operate

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"
)

// maxProfile is the longest time that a profile can cover, in seconds.
const maxProfile = 600

// handleProfiles serves the profiles of this process. The path is the usual
// one, but the command line is left out, and no profile is on the public
// listener.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/{profile}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if text := r.FormValue("seconds"); text != "" {
			if n, err := strconv.ParseFloat(text, 64); err != nil || !(n > 0 && n <= maxProfile) {
				http.Error(w, fmt.Sprintf("seconds must be a number up to %d", maxProfile), http.StatusBadRequest)
				return
			}
		}
		// Package pprof moves the deadline for writing. At the deadline for
		// reading, which is earlier, the context of the request ends, and with
		// it the profile.
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
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
