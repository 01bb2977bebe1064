// Package sse sends a [history.Log] over HTTP as server-sent events, which a
// browser reads with EventSource and a person with curl -N.
//
//	package main
//
//	import (
//		"context"
//		"net/http"
//
//		"github.com/relayguard/relayguard/history"
//		"github.com/relayguard/relayguard/history/sse"
//	)
//
//	func main() {
//		log, err := history.Open(context.Background(), history.Config{})
//		if err != nil {
//			panic(err)
//		}
//		events, err := sse.New(sse.Config{})
//		if err != nil {
//			panic(err)
//		}
//		http.Handle("GET /events", events.Handler(log))
//		http.ListenAndServe("127.0.0.1:8080", nil)
//	}
//
// In the browser:
//
//	const source = new EventSource("/events")
//	source.onmessage = event => show(event.data)
//	source.addEventListener("reset", () => clear())
//	source.addEventListener("end", () => source.close())
//
// # Events
//
// The format is that of the HTML standard, section 9.2 (Server-sent events).
// An entry is an event without a name, which EventSource calls a message. Its
// id is the [history.Position] after it. A new client gets the id of the place
// where it begins at once. When the connection breaks, the browser connects
// again by itself and sends the last id in Last-Event-ID. It then gets the
// entries that it missed, as a [history.Reader] does.
//
// There are three other events:
//
//	reset   all entries from before are replaced by the ones that follow; the
//	        data is the note of the Replace or Clear
//	missed  entries were dropped before they were sent; the data is how many
//	end     the log is finished; the response ends after it
//
// After the end, the page should close its EventSource. If it does not, it gets
// 204 (No Content) when it connects again, which makes every browser stop.
//
// The data is the data of the entry, which should be UTF-8. A line end, whether
// "\n", "\r" or "\r\n", arrives as "\n".
//
// # Streams that last
//
// While a log is quiet, a comment goes out every [Config.Ping], because many
// proxies close a connection that is idle. A client that does not take what is
// sent is disconnected after [Config.WriteTimeout]. A stream holds no queue: of
// a long history, at most 64 KiB and one entry are in memory for it at a time.
//
// The server's own http.Server.ReadTimeout and WriteTimeout do not end a
// stream. Neither does http.Server.Shutdown, which waits for it: close the log,
// or the [history.Set], first. Every stream holds a connection and a goroutine.
// Limit how many a client may have, for example with package ratelimit.
//
// HTTP/1.1 and HTTP/2 are supported. Over HTTP/1.1, a browser opens at most six
// connections to a site, so many streams on one page need HTTP/2.
package sse

import (
	"errors"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/history"
)

// The defaults of [Config].
const (
	defaultPing         = 15 * time.Second
	defaultWriteTimeout = 30 * time.Second
	defaultRetry        = 2 * time.Second
)

// Config configures a [Server]. The zero value is good for most services.
type Config struct {
	// Start, if not nil, returns where a client begins that sends no
	// Last-Event-ID, or one that is not of this log, for example
	// [history.Last] of 100. If nil, such a client gets all kept entries first.
	Start func(*http.Request) history.Position

	// Ping is how long a stream is quiet before a comment is sent. It should be
	// shorter than the idle timeout of each proxy. 0 means 15 seconds.
	Ping time.Duration

	// WriteTimeout is how long one write may take: up to 64 KiB, or one entry
	// that is longer. 0 means 30 seconds.
	WriteTimeout time.Duration

	// Retry is the shortest time after which a client should connect again.
	// Each client is told a random time between Retry and twice that, so that
	// they do not all come back at once after a restart. 0 means 2 seconds.
	Retry time.Duration
}

// ConfigError is one problem of a [Config]. It never holds a value.
type ConfigError struct {
	Field  string // with its struct, such as "Config.Ping"
	Reason error  // a [ConfigReason]
}

func (e *ConfigError) Error() string { return "sse: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns Reason, so that [errors.Is] finds it.
func (e *ConfigError) Unwrap() error { return e.Reason }

// ConfigReason is why a field of a [Config] is refused. The set is closed. It
// is an error, so that [errors.Is] finds it.
type ConfigReason string

// ConfigNegative is the reason of a [ConfigError].
const ConfigNegative ConfigReason = "must not be negative"

func (r ConfigReason) Error() string { return string(r) }

// Server sends logs to clients. [New] returns one. Its methods may be called
// from any goroutine, for any number of logs.
type Server struct{ cfg Config }

// New returns a Server. If cfg is wrong, the error joins a [*ConfigError] for
// each problem.
func New(cfg Config) (*Server, error) {
	var errs []error
	for _, f := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"Ping", &cfg.Ping, defaultPing},
		{"WriteTimeout", &cfg.WriteTimeout, defaultWriteTimeout},
		{"Retry", &cfg.Retry, defaultRetry},
	} {
		if *f.value < 0 {
			errs = append(errs, &ConfigError{"Config." + f.name, ConfigNegative})
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Server{cfg}, nil
}

// Handler returns a handler that sends log to each client. For logs by name,
// or to be told of errors, call [Server.Serve] in a handler of your own.
func (s *Server) Handler(log *history.Log) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.Serve(w, r, log) })
}
