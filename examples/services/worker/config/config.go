// Package config reads the worker's thirty variables.
package config

import (
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/relayguard/relayguard/envcheck"
)

// Config is the worker's configuration.
type Config struct {
	Queue, Result             *url.URL
	Token, Password           envcheck.Secret[string]
	SigningKey                envcheck.Secret[[]byte]
	Proxy                     envcheck.Secret[*url.URL]
	User, Instance, LogFormat string
	Kinds                     []string
	Labels                    map[string]string
	Workers                   int
	Attempts                  uint8
	MaxBytes                  int64
	Rate                      *float64
	Factor, Jitter            float64
	Poll, JobTimeout          time.Duration
	StopTimeout, First, Max   time.Duration
	Since                     *time.Time
	CA, Cert, CertKey         string
	HealthAddr                string
	HealthNetworks            []netip.Prefix
	LogLevel                  slog.Level
	DryRun                    bool
}

var (
	instance = envcheck.Match(regexp.MustCompile(`[a-z0-9-]{1,32}`), "at most 32 small letters, digits and hyphens")
	forever  = time.Duration(math.MaxInt64)
)

// Spec returns the variables, each with the field of c that it sets.
func (c *Config) Spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "QUEUE_URL", Required: true, Into: envcheck.URL(&c.Queue, "https", "http"), Example: "https://queue.example/next", Doc: "Where jobs are taken from."},
		{Name: "QUEUE_TOKEN", Into: envcheck.SecretOf(&c.Token, envcheck.Text), Check: envcheck.Strong(16), Doc: "Bearer token for the queue."},
		{Name: "QUEUE_USER", Into: envcheck.Text(&c.User), Doc: "User at the queue, instead of a token."},
		{Name: "QUEUE_PASSWORD", Into: envcheck.SecretOf(&c.Password, envcheck.Text), Check: envcheck.Strong(16), Doc: "Password of that user."},
		{Name: "RESULT_URL", Required: true, Into: envcheck.URL(&c.Result, "https", "http"), Example: "https://api.example/results", Doc: "Where results are posted."},
		{Name: "SIGNING_KEY", Required: true, Into: envcheck.SecretOf(&c.SigningKey, key), Doc: "Key that signs results (HMAC-SHA256)."},
		{Name: "KINDS", Default: "upper,sha256,count", Into: envcheck.ListOf(&c.Kinds, kind), Doc: "Kinds of jobs that are taken."},
		{Name: "WORKERS", Default: "4", Into: envcheck.Number(&c.Workers, 1, 256), Doc: "Jobs at the same time."},
		{Name: "RATE", Into: envcheck.Optional(&c.Rate, rate), Doc: "Jobs a second; without it, there is no limit."},
		{Name: "POLL_EVERY", Default: "1s", Into: envcheck.Duration(&c.Poll, 10*time.Millisecond, time.Hour), Doc: "Pause after an empty queue."},
		{Name: "JOB_TIMEOUT", Default: "30s", Into: envcheck.Duration(&c.JobTimeout, time.Second, forever), Doc: "Time for one request."},
		{Name: "STOP_TIMEOUT", Default: "10s", Into: envcheck.Duration(&c.StopTimeout, 0, time.Hour), Doc: "Time for open jobs after a signal."},
		{Name: "MAX_JOB_BYTES", Default: "1MiB", Into: envcheck.Bytes(&c.MaxBytes, 1, 1<<30), Doc: "Largest job."},
		{Name: "ATTEMPTS", Default: "5", Into: envcheck.Number(&c.Attempts, 1, 20), Doc: "Attempts to post a result."},
		{Name: "BACKOFF_FIRST", Default: "100ms", Into: envcheck.Duration(&c.First, time.Millisecond, time.Hour), Doc: "Pause after the first failure."},
		{Name: "BACKOFF_MAX", Default: "10s", Into: envcheck.Duration(&c.Max, time.Millisecond, time.Hour), Doc: "Longest pause."},
		{Name: "BACKOFF_FACTOR", Default: "2", Into: envcheck.Number(&c.Factor, 1, 10), Doc: "Growth of the pause."},
		{Name: "JITTER", Default: "0.5", Into: envcheck.Number(&c.Jitter, 0, 1), Doc: "Random part of the pause."},
		{Name: "SINCE", Into: envcheck.Optional(&c.Since, since), Example: "2026-01-31T18:30:00Z", Doc: "Jobs made before are left out."},
		{Name: "LABELS", Into: envcheck.Map(&c.Labels, envcheck.Text), Example: "region=eu,team=art", Doc: "Headers of every result."},
		{Name: "INSTANCE", Default: "worker", Into: envcheck.Text(&c.Instance), Check: instance, Doc: "Name of this worker."},
		{Name: "CA_FILE", Into: envcheck.File(&c.CA), Doc: "Certificates to trust instead of the system's (PEM)."},
		{Name: "CLIENT_CERT_FILE", Into: envcheck.File(&c.Cert), Doc: "Certificate of the worker (PEM)."},
		{Name: "CLIENT_KEY_FILE", Into: envcheck.File(&c.CertKey), Doc: "Its key (PEM)."},
		{Name: "PROXY_URL", Into: envcheck.SecretOf(&c.Proxy, proxy), Doc: "Proxy for all requests, with its password if it has one."},
		{Name: "HEALTH_ADDR", Default: "127.0.0.1:9090", AllowEmpty: true, Into: envcheck.HostPort(&c.HealthAddr), Doc: "Address of /healthz; empty for none."},
		{Name: "HEALTH_NETWORKS", Default: "127.0.0.0/8,::1/128", Into: envcheck.ListOf(&c.HealthNetworks, network), Doc: "Networks that may ask for it."},
		{Name: "LOG_LEVEL", Default: "info", Into: envcheck.TextUnmarshaler(&c.LogLevel, "debug, info, warn or error"), Doc: "Lowest level that is logged."},
		{Name: "LOG_FORMAT", Default: "text", Into: envcheck.Enum(&c.LogFormat, "text", "json"), Doc: "Format of the log."},
		{Name: "DRY_RUN", Default: "false", Into: envcheck.Bool(&c.DryRun), Doc: "Whether results are only logged."},
	}, Rules: []envcheck.Rule{
		envcheck.OneOf("QUEUE_TOKEN", "QUEUE_PASSWORD"),
		envcheck.Together("QUEUE_USER", "QUEUE_PASSWORD"),
		envcheck.Together("CLIENT_CERT_FILE", "CLIENT_KEY_FILE"),
		envcheck.RuleFunc("must not be below BACKOFF_FIRST", func() bool { return c.Max >= c.First }, "BACKOFF_MAX", "BACKOFF_FIRST"),
	}}
}

func key(k *[]byte) envcheck.Setter      { return envcheck.Bytes64(k, 32, 64) }
func kind(k *string) envcheck.Setter     { return envcheck.Enum(k, "upper", "sha256", "count") }
func rate(r *float64) envcheck.Setter    { return envcheck.Number(r, 0.001, math.MaxFloat64) }
func since(t *time.Time) envcheck.Setter { return envcheck.Time(t, time.RFC3339) }
func proxy(u **url.URL) envcheck.Setter  { return envcheck.URL(u, "http", "https", "socks5") }
func network(p *netip.Prefix) envcheck.Setter {
	return envcheck.TextUnmarshaler(p, "a network like 10.0.0.0/8")
}
