package wsadapter

import (
	"errors"
	"net/http"
	"time"

	"github.com/relayguard/relayguard/wsauth"
)

// Config configures an [Adapter]. The zero value is ready to use.
type Config struct {
	// WriteTimeout is how long a write may wait without progress. 0 means 10
	// seconds.
	WriteTimeout time.Duration
	// CloseGrace is how long to wait for the client's answer to a close frame.
	// 0 means 1 second.
	CloseGrace time.Duration
	// PingInterval is the time between pings. 0 means 30 seconds.
	PingInterval time.Duration
	// PongTimeout is how long after a ping the client may send nothing. 0 means
	// 10 seconds.
	PongTimeout time.Duration
	// ReadLimit is the maximum size of a message in bytes, until
	// [Conn.SetReadLimit] is called. 0 means 4 KiB. It replaces the limit of
	// the library.
	ReadLimit int64
}

// ConfigError is one problem of a [Config]. It never contains a value.
type ConfigError struct {
	// Field is the field with its struct, such as "Config.WriteTimeout".
	Field string
	// Reason is a [wsauth.ConfigReason].
	Reason error
}

func (e *ConfigError) Error() string { return "wsadapter: " + e.Field + " " + e.Reason.Error() }

// Unwrap returns the reason, for [errors.Is].
func (e *ConfigError) Unwrap() error { return e.Reason }

// Adapter has the bounds for the connections that pass through it. It is safe
// for concurrent use.
type Adapter struct{ cfg Config }

// New returns an Adapter. Its error joins a [*ConfigError] for every problem.
func New(cfg Config) (*Adapter, error) {
	var errs []error
	positive := func(field string, d *time.Duration, standard time.Duration) {
		if *d < 0 {
			errs = append(errs, &ConfigError{"Config." + field, wsauth.ConfigNegative})
		}
		if *d == 0 {
			*d = standard
		}
	}
	positive("WriteTimeout", &cfg.WriteTimeout, 10*time.Second)
	positive("CloseGrace", &cfg.CloseGrace, time.Second)
	positive("PingInterval", &cfg.PingInterval, 30*time.Second)
	positive("PongTimeout", &cfg.PongTimeout, 10*time.Second)
	if cfg.ReadLimit < 0 {
		errs = append(errs, &ConfigError{"Config.ReadLimit", wsauth.ConfigNegative})
	}
	if cfg.ReadLimit == 0 {
		cfg.ReadLimit = 4 << 10
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return &Adapter{cfg}, nil
}

// Wrap returns the ResponseWriter to pass to the library instead of w, for one
// request. It keeps the net.Conn of the upgrade for [Gorilla] or [Coder].
func (a *Adapter) Wrap(w http.ResponseWriter) *ResponseWriter {
	return &ResponseWriter{ResponseWriter: w, cfg: &a.cfg}
}
