// Package worker is the configuration of examples/services/worker, written with
// caarlos0/env. Its tests compare the two: the environments that they accept,
// their lines and their time.
//
// Load makes the same checks of values and of rules between variables, reads
// NAME_FILE, reports all problems, and shows no value. It does not do the rest:
// it does not find misspelt names, quotes and invisible characters around
// values, placeholders and repeated items, and has no documents, no report, no
// .env file, no credentials of systemd and no Redactor.
package worker

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Config is the worker's configuration.
type Config struct {
	Queue          url.URL           `env:"QUEUE_URL,notEmpty"`
	Token          Secret            `env:"QUEUE_TOKEN"`
	User           string            `env:"QUEUE_USER"`
	Password       Secret            `env:"QUEUE_PASSWORD"`
	Result         url.URL           `env:"RESULT_URL,notEmpty"`
	SigningKey     Secret            `env:"SIGNING_KEY,notEmpty"`
	Kinds          []string          `env:"KINDS" envDefault:"upper,sha256,count"`
	Workers        int               `env:"WORKERS" envDefault:"4"`
	Rate           *float64          `env:"RATE"`
	Poll           time.Duration     `env:"POLL_EVERY" envDefault:"1s"`
	JobTimeout     time.Duration     `env:"JOB_TIMEOUT" envDefault:"30s"`
	StopTimeout    time.Duration     `env:"STOP_TIMEOUT" envDefault:"10s"`
	MaxBytes       Size              `env:"MAX_JOB_BYTES" envDefault:"1MiB"`
	Attempts       uint8             `env:"ATTEMPTS" envDefault:"5"`
	First          time.Duration     `env:"BACKOFF_FIRST" envDefault:"100ms"`
	Max            time.Duration     `env:"BACKOFF_MAX" envDefault:"10s"`
	Factor         float64           `env:"BACKOFF_FACTOR" envDefault:"2"`
	Jitter         float64           `env:"JITTER" envDefault:"0.5"`
	Since          *time.Time        `env:"SINCE"`
	Labels         map[string]string `env:"LABELS" envKeyValSeparator:"="`
	Instance       string            `env:"INSTANCE" envDefault:"worker"`
	CA             string            `env:"CA_FILE"`
	Cert           string            `env:"CLIENT_CERT_FILE"`
	CertKey        string            `env:"CLIENT_KEY_FILE"`
	Proxy          Secret            `env:"PROXY_URL"`
	HealthAddr     string            `env:"HEALTH_ADDR" envDefault:"127.0.0.1:9090"`
	HealthNetworks []netip.Prefix    `env:"HEALTH_NETWORKS" envDefault:"127.0.0.0/8,::1/128"`
	LogLevel       slog.Level        `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat      string            `env:"LOG_FORMAT" envDefault:"text"`
	DryRun         bool              `env:"DRY_RUN" envDefault:"false"`

	Key      []byte   `env:"-"` // of SigningKey
	ProxyURL *url.URL `env:"-"`
}

// Secret does not show its value.
type Secret struct{ value *string }

// UnmarshalText sets the value.
func (s *Secret) UnmarshalText(text []byte) error {
	value := string(text)
	s.value = &value
	return nil
}

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Format prints no value.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[redacted]") }

// Size is a number of bytes.
type Size int64

// UnmarshalText reads a number with a unit.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for i, name := range []string{"B", "KiB", "MiB", "GiB"} {
		if n, ok := strings.CutSuffix(number, name); ok && (i > 0 || !strings.HasSuffix(n, "i")) {
			number, unit = n, 1<<(10*i)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<30 {
		return errors.New("not a size")
	}
	*s = Size(n * unit)
	return nil
}

var (
	instance = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	secrets  = []string{"QUEUE_TOKEN", "QUEUE_PASSWORD", "SIGNING_KEY", "PROXY_URL"}
)

// Load reads and checks the environment.
func Load(vars map[string]string) (c Config, err error) {
	var problems []error
	refuse := func(bad bool, text string) {
		if bad {
			problems = append(problems, errors.New(text))
		}
	}
	for _, name := range secrets {
		path := vars[name+"_FILE"]
		if path == "" {
			continue
		}
		refuse(vars[name] != "", name+" is set together with "+name+"_FILE")
		text, err := os.ReadFile(path)
		refuse(err != nil, name+"_FILE cannot be read")
		vars[name] = strings.TrimRight(string(text), "\r\n")
	}
	health, healthSet := vars["HEALTH_ADDR"]
	if err := env.ParseWithOptions(&c, env.Options{Environment: vars}); err != nil {
		all, ok := err.(env.AggregateError)
		refuse(!ok, "the environment cannot be parsed")
		for _, err := range all.Errors { // their texts have the values
			if parse, ok := errors.AsType[env.ParseError](err); ok {
				problems = append(problems, fmt.Errorf("%s cannot be parsed", parse.Name))
			} else if empty, ok := errors.AsType[env.EmptyVarError](err); ok {
				problems = append(problems, fmt.Errorf("%s is required", empty.Key))
			} else {
				problems = append(problems, errors.New("a variable cannot be read"))
			}
		}
	}
	if healthSet && health == "" {
		c.HealthAddr = ""
	}
	for name, u := range map[string]url.URL{"QUEUE_URL": c.Queue, "RESULT_URL": c.Result} {
		set := vars[name] != ""
		refuse(set && (u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http"), name+" must be a URL that begins with https:// or http://")
		refuse(set && u.User != nil, name+" must not have a user or a password in it")
	}
	refuse(c.Token.Reveal() != "" && len(c.Token.Reveal()) < 16, "QUEUE_TOKEN must have at least 16 characters")
	refuse(c.Password.Reveal() != "" && len(c.Password.Reveal()) < 16, "QUEUE_PASSWORD must have at least 16 characters")
	if text := c.SigningKey.Reveal(); text != "" {
		encoding := base64.RawStdEncoding
		if strings.ContainsAny(text, "-_") {
			encoding = base64.RawURLEncoding
		}
		c.Key, err = encoding.Strict().DecodeString(strings.TrimRight(text, "="))
		refuse(err != nil || len(c.Key) < 32 || len(c.Key) > 64, "SIGNING_KEY must be 32 to 64 bytes in base64")
	}
	for _, kind := range c.Kinds {
		refuse(!slices.Contains([]string{"upper", "sha256", "count"}, kind), "KINDS must be upper, sha256 or count")
	}
	refuse(c.Workers < 1 || c.Workers > 256, "WORKERS must be from 1 to 256")
	refuse(c.Rate != nil && !(*c.Rate >= 0.001), "RATE must be 0.001 or more")
	refuse(c.Poll < 10*time.Millisecond || c.Poll > time.Hour, "POLL_EVERY must be from 10ms to 1h")
	refuse(c.JobTimeout < time.Second, "JOB_TIMEOUT must be 1s or more")
	refuse(c.StopTimeout < 0 || c.StopTimeout > time.Hour, "STOP_TIMEOUT must be from 0s to 1h")
	refuse(c.MaxBytes < 1 || c.MaxBytes > 1<<30, "MAX_JOB_BYTES must be from 1B to 1GiB")
	refuse(c.Attempts < 1 || c.Attempts > 20, "ATTEMPTS must be from 1 to 20")
	refuse(c.First < time.Millisecond || c.First > time.Hour, "BACKOFF_FIRST must be from 1ms to 1h")
	refuse(c.Max < time.Millisecond || c.Max > time.Hour, "BACKOFF_MAX must be from 1ms to 1h")
	refuse(!(c.Factor >= 1 && c.Factor <= 10), "BACKOFF_FACTOR must be from 1 to 10")
	refuse(!(c.Jitter >= 0 && c.Jitter <= 1), "JITTER must be from 0 to 1")
	refuse(!instance.MatchString(c.Instance), "INSTANCE must be at most 32 small letters, digits and hyphens")
	for name, path := range map[string]string{"CA_FILE": c.CA, "CLIENT_CERT_FILE": c.Cert, "CLIENT_KEY_FILE": c.CertKey} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		refuse(err != nil || !info.Mode().IsRegular(), name+" must be the path of a file")
	}
	if text := c.Proxy.Reveal(); text != "" {
		c.ProxyURL, err = url.Parse(text)
		refuse(err != nil || c.ProxyURL.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5"}, c.ProxyURL.Scheme),
			"PROXY_URL must be a URL that begins with http://, https:// or socks5://")
	}
	if c.HealthAddr != "" {
		host, port, err := net.SplitHostPort(c.HealthAddr)
		n, portErr := strconv.ParseUint(port, 10, 16)
		refuse(err != nil || host == "" || portErr != nil || n == 0, "HEALTH_ADDR must be an address like host.example:8080")
	}
	refuse(c.LogFormat != "text" && c.LogFormat != "json", "LOG_FORMAT must be text or json")
	refuse((c.Token.Reveal() != "") == (c.Password.Reveal() != ""), "set exactly one of QUEUE_TOKEN and QUEUE_PASSWORD")
	refuse((c.User != "") != (c.Password.Reveal() != ""), "set both QUEUE_USER and QUEUE_PASSWORD, or neither")
	refuse((c.Cert != "") != (c.CertKey != ""), "set both CLIENT_CERT_FILE and CLIENT_KEY_FILE, or neither")
	refuse(c.Max < c.First, "BACKOFF_MAX must not be below BACKOFF_FIRST")
	return c, errors.Join(problems...)
}
