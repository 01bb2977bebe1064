package bench_test

import (
	"maps"
	"testing"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/interop/services/worker"
	"github.com/relayguard/relayguard/examples/services/worker/config"
)

// thirty is an environment in which all variables of the worker are set that
// can be set together, but those that name files.
var thirty = map[string]string{
	"QUEUE_URL": "https://queue.example/next", "RESULT_URL": "https://api.example/results", "QUEUE_TOKEN": "Hc7xV2pQm9LsT4wKb8Zd",
	"SIGNING_KEY": "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=", "KINDS": "upper,count", "WORKERS": "8", "RATE": "2.5", "POLL_EVERY": "2s",
	"JOB_TIMEOUT": "1m", "STOP_TIMEOUT": "5s", "MAX_JOB_BYTES": "2MiB", "ATTEMPTS": "3", "BACKOFF_FIRST": "50ms", "BACKOFF_MAX": "5s",
	"BACKOFF_FACTOR": "1.5", "JITTER": "0.25", "SINCE": "2026-01-31T18:30:00Z", "LABELS": "region=eu,team=art", "INSTANCE": "worker-1",
	"PROXY_URL": "http://u:p@proxy.example:3128", "HEALTH_ADDR": "0.0.0.0:9090", "HEALTH_NETWORKS": "10.0.0.0/8", "LOG_LEVEL": "warn",
	"LOG_FORMAT": "json", "DRY_RUN": "true",
}

// BenchmarkEnvironment loads the worker's configuration. The tests of both
// configurations show that they decide alike.
func BenchmarkEnvironment(b *testing.B) {
	lookup := envcheck.FromMap(thirty)
	compare(b, 100,
		contender{"envcheck", func(n int) {
			for range n {
				var cfg config.Config
				if err := cfg.Spec().Load(lookup); err != nil {
					b.Fatal(err)
				}
			}
		}},
		contender{"caarlos0/env", func(n int) {
			for range n {
				if _, err := worker.Load(maps.Clone(thirty)); err != nil {
					b.Fatal(err)
				}
			}
		}})
}
