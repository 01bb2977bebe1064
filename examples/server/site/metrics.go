package site

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/history"
)

// Metrics are the metrics of this server for Prometheus. The values of each
// label are a closed set, such as the rooms of ROOMS. No address, device or
// token is ever a label, since a stranger could then fill the memory of this
// server and of Prometheus.
// metrics.md lists all metrics.
type Metrics struct {
	Registry  *prometheus.Registry
	responses *prometheus.CounterVec
}

func newMetrics(s *Site) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: watch.Namespace, Name: "http_responses_total",
			Help: "Answers to HTTP requests, those for the WebSocket not included, by status."}, []string{"code"}),
	}
	// A count of events that have not happened yet is 0 and not absent.
	// Otherwise the first event would not show as a rise.
	m.responses.WithLabelValues("200")
	m.responses.WithLabelValues("500")
	m.Registry.MustRegister(m.responses, s.Watch, s.pooled.unreadable, s.pooled.refused, newFigures(s), newEnds(s),
		collectors.NewBuildInfoCollector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{})
}

// answers counts the responses of next. It must not wrap the WebSocket's
// handler, which returns only when the connection ends.
func (m *Metrics) answers(next http.Handler) http.Handler {
	return promhttp.InstrumentHandlerCounter(m.responses, next)
}

// snapshot is the state of the server for one scrape.
type snapshot struct {
	relay    relay.Stats
	history  history.Stats
	gate     int
	blocks   int
	durable  bool
	degraded bool
	engine   engine.Stats
	most     int
	idle     int
	unidled  uint64
	held     bool
	viewers  int
	rooms    []room
	lives    lives.Stats
}

// room is the state of one of several rooms.
type room struct {
	name      string
	viewers   int
	published uint64
	bytes     int64
}

// figure is one metric that is read from a snapshot.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(snapshot, func(value float64, labels ...string))
}

// figures is the collector of all figures. It makes one snapshot for each
// scrape, so that a scrape reads each part once.
type figures struct {
	of  *Site
	all []figure
	lag *prometheus.Desc
}

func newFigures(s *Site) *figures {
	f := &figures{of: s}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(watch.Namespace, "", name), help, labels, nil)
	}
	one := func(kind prometheus.ValueType, name, help string, value func(snapshot) float64) {
		f.all = append(f.all, figure{desc(name, help), kind, func(m snapshot, emit func(float64, ...string)) { emit(value(m)) }})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue

	one(gauge, "connections_open", "WebSockets and streams of events that are open now, publishers included.", func(m snapshot) float64 { return float64(m.relay.Connections) })
	one(gauge, "connections_limit", "WebSockets and streams of events that may be open (MAX_CONNECTIONS). A further one is refused, and counted with the reason total.", func(m snapshot) float64 { return float64(m.most) })
	one(gauge, "http_connections_idle", "HTTP connections that are open between requests, those of trusted proxies not included.", func(m snapshot) float64 { return float64(m.idle) })
	one(counter, "http_connections_closed_total", "Idle HTTP connections that were closed because their client had more than 100.", func(m snapshot) float64 { return float64(m.unidled) })
	one(gauge, "viewers_open", "WebSockets and streams of events that watch now.", func(m snapshot) float64 { return float64(m.viewers) })
	one(gauge, "publishers_open", "WebSocket connections that may publish now.", func(m snapshot) float64 { return float64(m.gate) })
	one(counter, "connections_total", "WebSockets and streams of events that were opened.", func(m snapshot) float64 { return float64(m.relay.Connected) })
	one(counter, "upgrades_failed_total", "Requests for a WebSocket that could not be upgraded, refused origins not included.", func(m snapshot) float64 { return float64(m.relay.Failed) })
	f.all = append(f.all, figure{
		desc("connections_ended_total", "Connections that ended, by their cause, as in the log.", "cause"), counter,
		func(m snapshot, emit func(float64, ...string)) {
			for cause, n := range m.relay.Ended {
				emit(float64(n), cause)
			}
		},
	})
	one(gauge, "networks_blocked", "Networks that are blocked now by the operator.", func(m snapshot) float64 { return float64(m.blocks) })
	one(counter, "frames_encoded_total", "Frames encoded. All viewers at the same position share one frame.", func(m snapshot) float64 { return float64(m.relay.Encoded) })
	one(counter, "frames_delivered_total", "Frames written to a viewer.", func(m snapshot) float64 { return float64(m.relay.Delivered) })
	one(counter, "messages_delivered_total", "Messages in the frames that were written to viewers.", func(m snapshot) float64 { return float64(m.relay.Messages) })
	one(counter, "merges_total", "Live frames with more than one message that were written to a viewer, because the viewer was behind or the messages came within a moment.", func(m snapshot) float64 { return float64(m.relay.Merged) })
	f.lag = desc("viewer_lag_seconds", "Delay of viewers: for each live frame, the time from storing its oldest message to the end of its write to the viewer.")
	one(counter, "messages_invalid_total", "Messages of publishers that broke the schema.", func(m snapshot) float64 { return float64(m.relay.Invalid) })
	one(counter, "messages_duplicate_total", "Messages of publishers that were published before, and acknowledged again.", func(m snapshot) float64 { return float64(m.relay.Duplicates) })
	one(counter, "messages_unpublished_total", "Messages that could not be stored, which ended the publisher's connection.", func(m snapshot) float64 { return float64(m.relay.Unpublished) })

	one(counter, "messages_retried_total", "Further tries to store a message while the engine was away.", func(m snapshot) float64 { return float64(m.relay.Retried) })

	one(gauge, "viewers_held", "1 while the operator holds viewers (`server hold`), else 0.", func(m snapshot) float64 { return truth(m.held) })

	byRoom := func(kind prometheus.ValueType, name, help string, value func(room) float64) {
		f.all = append(f.all, figure{desc(name, help, "room"), kind, func(m snapshot, emit func(float64, ...string)) {
			for _, r := range m.rooms {
				emit(value(r), r.name)
			}
		}})
	}
	byRoom(gauge, "room_viewers_open", "WebSockets and streams of events that watch a room now (ROOMS).", func(r room) float64 { return float64(r.viewers) })
	byRoom(counter, "room_published_total", "Messages published in a room, restart signals not included.", func(r room) float64 { return float64(r.published) })
	byRoom(gauge, "room_history_bytes", "Size of the messages that the history of a room keeps.", func(r room) float64 { return float64(r.bytes) })

	one(gauge, "history_messages", "Messages that the history keeps.", func(m snapshot) float64 { return float64(m.history.Entries) })
	one(gauge, "history_bytes", "Size of the messages that the history keeps.", func(m snapshot) float64 { return float64(m.history.Bytes) })
	one(gauge, "history_oldest_age_seconds", "Age of the oldest message that the history keeps; 0 if the history is empty.", func(m snapshot) float64 {
		if m.history.Oldest.IsZero() {
			return 0
		}
		return max(time.Since(m.history.Oldest).Seconds(), 0)
	})
	one(counter, "history_appended_total", "Messages published, restart signals not included.", func(m snapshot) float64 { return float64(m.history.Appended) })
	one(counter, "history_replaced_total", "Times that the history was cleared or replaced: restart signals, imports and erasures of everything.", func(m snapshot) float64 { return float64(m.history.Replaced) })
	one(counter, "history_erased_total", "Messages erased one by one.", func(m snapshot) float64 { return float64(m.history.Deleted) })
	f.all = append(f.all, figure{
		desc("history_trimmed_total", "Messages dropped by retention, by the limit that they exceeded.", "reason"), counter,
		func(m snapshot, emit func(float64, ...string)) {
			emit(float64(m.history.TrimmedByCount), string(history.TrimByCount))
			emit(float64(m.history.TrimmedByBytes), string(history.TrimByBytes))
			emit(float64(m.history.TrimmedByAge), string(history.TrimByAge))
			emit(float64(m.history.TrimmedByWeight), string(history.TrimByWeight))
		},
	})
	one(gauge, "history_durable", "1 if the history outlives this server: on disk (HISTORY_DIR) or in the engine (REDIS_URL), else 0.", func(m snapshot) float64 { return truth(m.durable) })
	one(gauge, "history_degraded", "1 while the disk fails and the history is in memory only, else 0.", func(m snapshot) float64 { return truth(m.degraded) })

	one(gauge, "lives_kept", "Lives that have ended and are kept (LIVES_DIR), the unreadable ones included.", func(m snapshot) float64 { return float64(m.lives.Lives) })
	one(gauge, "lives_unreadable", "Lives that are kept, and cannot be read: they were sealed with another key, or are damaged.", func(m snapshot) float64 { return float64(m.lives.Unreadable) })
	one(gauge, "lives_bytes", "Size of the files of the lives that are kept.", func(m snapshot) float64 { return float64(m.lives.Bytes) })
	one(counter, "lives_failed_total", "Lives that have ended and could not be kept, and old ones that could not be removed.", func(m snapshot) float64 { return float64(m.lives.Failed) })

	one(gauge, "engine_away", "1 while the engine (REDIS_URL) cannot be used: viewers are served from memory, and publishers wait; else 0, also without REDIS_URL.", func(m snapshot) float64 { return truth(m.engine.Away) })
	one(gauge, "engine_lag_seconds", "Age of the newest message when it came from the engine.", func(m snapshot) float64 { return max(m.engine.Lag.Seconds(), 0) })
	one(counter, "engine_reloads_total", "Times that the history was loaded from the engine as a whole, after the start: after an erasure, a failover or an outage.", func(m snapshot) float64 { return float64(m.engine.Reloads) })
	one(counter, "engine_retries_total", "Changes of the history that were asked again, because the engine did not answer.", func(m snapshot) float64 { return float64(m.engine.Retries) })
	one(gauge, "engine_nodes", "Servers that share the engine, this one included, as far as this one knows.", func(m snapshot) float64 { return float64(m.engine.Nodes) })
	one(counter, "engine_alone_total", "Decisions about connections that this server made alone, because the engine did not answer at once: a client may then open as many connections on each server.", func(m snapshot) float64 { return float64(m.engine.Alone) })
	return f
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(out chan<- *prometheus.Desc) {
	for _, one := range f.all {
		out <- one.desc
	}
	out <- f.lag
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(out chan<- prometheus.Metric) {
	all, log := f.of.Rooms.Stats()
	m := snapshot{
		relay: all, history: log, gate: len(f.of.Authority.Gate().Sessions()), blocks: len(f.of.Watch.Limiter().Blocks()),
		durable: f.of.cfg.HistoryDir != "" || f.of.engine != nil, degraded: f.of.degraded.any(),
		most: f.of.cfg.MaxConnections, idle: f.of.idle.len(), unidled: f.of.idle.closed.Load(),
	}
	since, _ := f.of.Brake.Held()
	m.held, m.viewers = !since.IsZero(), f.of.Rooms.Here()
	if f.of.Rooms.Named() {
		for _, r := range f.of.Rooms.All() {
			log := r.Log.Stats()
			m.rooms = append(m.rooms, room{r.Name, r.Relay().Watching(), log.Appended, log.Bytes})
		}
	}
	if e := f.of.engine; e != nil {
		m.engine = e.Stats()
	}
	if l := f.of.Lives; l != nil {
		m.lives = l.Stats()
	}
	for _, one := range f.all {
		one.read(m, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(one.desc, one.kind, value, labels...)
		})
	}
	buckets, below := make(map[float64]uint64, len(relay.LagBounds)), uint64(0)
	for i, bound := range relay.LagBounds {
		below += m.relay.Lag.Counts[i]
		buckets[bound.Seconds()] = below
	}
	out <- prometheus.MustNewConstHistogram(f.lag, m.relay.Lag.Count, m.relay.Lag.Sum.Seconds(), buckets)
}
