//go:build unix

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is what -json prints. The package comment explains each field.
type report struct {
	Mode      string         `json:"mode"`
	Run       string         `json:"run"`
	Viewers   int            `json:"viewers"`
	Connected int            `json:"connected"`
	Refused   map[string]int `json:"refused"`
	Slow      int            `json:"slow"`

	Published  int64          `json:"published"`
	Expected   int64          `json:"expected"`
	Deliveries int64          `json:"deliveries"`
	Frames     int64          `json:"frames"`
	Bytes      int64          `json:"bytes"`
	Loss       int64          `json:"loss"`
	Duplicates int64          `json:"duplicates"`
	OutOfOrder int64          `json:"out_of_order"`
	Malformed  int64          `json:"malformed"`
	Dropped    map[string]int `json:"dropped"`
	SlowDrops  map[string]int `json:"slow_dropped"`
	Reconnects map[string]int `json:"reconnects"`

	Latency  quantiles `json:"latency_ms"`
	Complete quantiles `json:"complete_ms"`

	PeakReturns int `json:"peak_returns"`
	Untold      int `json:"untold"`

	Rate       float64 `json:"rate"`
	RateHeld   float64 `json:"rate_held"`
	Throughput float64 `json:"throughput"`
	Seconds    float64 `json:"seconds"`

	ServerCPU      float64 `json:"server_cpu_seconds"`
	CPUPerDelivery float64 `json:"cpu_us_per_delivery"`
	RSSStart       int64   `json:"server_rss_start"`
	RSSMax         int64   `json:"server_rss_max"`
	RSSEnd         int64   `json:"server_rss_end"`
	RSSPerViewer   float64 `json:"server_rss_per_viewer"`
	OwnCPU         float64 `json:"load_cpu_seconds"`

	Servers []serverReport `json:"servers"`

	Failures []string `json:"failures"`
	Notes    []string `json:"notes"`
}

// serverReport is the part of one -url.
type serverReport struct {
	URL            string    `json:"url"`
	Viewers        int       `json:"viewers"`
	AtEnd          int       `json:"at_end"`
	Deliveries     int64     `json:"deliveries"`
	Latency        quantiles `json:"latency_ms"`
	CPU            float64   `json:"server_cpu_seconds"`
	CPUPerDelivery float64   `json:"cpu_us_per_delivery"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func quantilesOf(h *histogram) quantiles {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return quantiles{ms(h.quantile(0.5)), ms(h.quantile(0.99)), ms(h.max)}
}

// judge sets Failures and Notes. A failure is an event that must not happen to
// a viewer that reads.
func (r *report) judge() {
	fail := func(n int64, what string) {
		if n > 0 {
			r.Failures = append(r.Failures, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, why := range sortedKeys(r.Refused) {
		line := fmt.Sprintf("%d viewers were refused (%s)", r.Refused[why], why)
		if a := advice(why); a != "" {
			line += ": " + a
		}
		r.Failures = append(r.Failures, line)
	}
	for _, code := range sortedKeys(r.Dropped) {
		fail(int64(r.Dropped[code]), "viewers were dropped ("+code+")")
	}
	fail(r.Loss, "deliveries were lost")
	fail(r.Duplicates, "deliveries came twice")
	fail(r.OutOfOrder, "deliveries came out of order")
	fail(r.Malformed, "messages of this run arrived damaged")
	fail(int64(r.Untold), "viewers were not told when to come back")
	if r.publishes() && r.Published == 0 && len(r.Failures) == 0 {
		r.Failures = append(r.Failures, "nothing was published, so nothing was tested")
	}
	if r.Mode == modeFanout && r.RateHeld > 0 && r.RateHeld < 0.98*r.Rate {
		r.Notes = append(r.Notes, fmt.Sprintf("the publisher sent %.1f of %g messages a second: the machine, or the server's limit for one publisher, is too slow", r.RateHeld, r.Rate))
	}
}

// publishes reports whether messages are published in this mode.
func (r *report) publishes() bool { return r.Mode == modeFanout || r.Mode == modeStorm }

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeText prints the table.
func (r *report) writeText(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("viewers", "%d, %d connected%s", r.Viewers, r.Connected, counted(", refused: ", r.Refused))
	if r.Slow > 0 {
		line("slow among them", "%d%s", r.Slow, counted(", dropped by the server: ", r.SlowDrops))
	}
	if r.publishes() {
		line("published", "%d", r.Published)
		line("deliveries", "%d of %d, in %d frames", r.Deliveries-r.Duplicates, r.Expected, r.Frames)
		line("loss", "%d", r.Loss)
		line("duplicates", "%d", r.Duplicates)
		line("out of order", "%d", r.OutOfOrder)
	}
	line("dropped", "%s", cmp.Or(counted("", r.Dropped), "0"))
	if len(r.Servers) > 1 {
		line("reconnects", "%s", cmp.Or(counted("", r.Reconnects), "0"))
	}
	ms := func(name string, q quantiles) { line(name, "p50 %.1f, p99 %.1f, max %.1f ms", q.P50, q.P99, q.Max) }
	switch r.Mode {
	case modeFanout:
		ms("latency", r.Latency)
		line("rate", "%.1f messages a second of %g", r.RateHeld, r.Rate)
		line("throughput", "%.0f deliveries a second", r.Throughput)
	case modeStorm:
		ms("until complete", r.Complete)
	case modeRestart:
		ms("until back", r.Complete)
		line("most in a second", "%d", r.PeakReturns)
	}
	if len(r.Servers) > 1 {
		for _, s := range r.Servers {
			line(s.URL, "%d viewers, %d at the end, %d deliveries", s.Viewers, s.AtEnd, s.Deliveries)
			if r.Mode == modeFanout {
				ms("  latency", s.Latency)
			}
			if s.CPUPerDelivery > 0 {
				line("  CPU", "%.2f s, %.2f µs a delivery", s.CPU, s.CPUPerDelivery)
			}
		}
	}
	if r.RSSStart > 0 {
		line("server CPU", "%.2f s in %.1f s", r.ServerCPU, r.Seconds)
		if r.Deliveries > 0 {
			line("  a delivery", "%.2f µs", r.CPUPerDelivery)
		}
		mb := func(n int64) float64 { return float64(n) / (1 << 20) }
		line("server memory", "%.1f MB before, %.1f at most, %.1f after", mb(r.RSSStart), mb(r.RSSMax), mb(r.RSSEnd))
		if r.Mode == modeIdle {
			line("  a viewer", "%.1f KB", r.RSSPerViewer/1024)
		}
	}
	line("load's own CPU", "%.2f s", r.OwnCPU)
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	for _, f := range r.Failures {
		line("FAILED", "%s", f)
	}
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }

// counted returns m as "3 × a, 1 × b", with before in front of it. If m is
// empty, it returns "".
func counted(before string, m map[string]int) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%d × %s", m[k], k))
	}
	if len(parts) == 0 {
		return ""
	}
	return before + strings.Join(parts, ", ")
}
