// Package config is what the server's environment says.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/wsauth"
)

// Config is what the environment says, and below it what only tests change.
type Config struct {
	Secret     envcheck.Secret
	Previous   envcheck.Secret
	Devices    []string
	Production bool
	Host       string
	Port       uint16

	OperatorAddr string

	AuthDir          string
	AccessLifetime   time.Duration
	RefreshLifetime  time.Duration
	TokenMaxLifetime time.Duration
	OnExpiry         wsauth.OnExpiry
	DeviceSessions   int
	OverSessions     wsauth.OverLimit

	TLSCert, TLSKey string // files
	RedirectAddr    string

	Proxies         []netip.Prefix
	Origins         []string
	RateConnections int
	RateWindow      time.Duration

	HistoryKeep     int
	HistoryTrimAt   int
	HistoryMaxAge   time.Duration
	HistoryMaxBytes int64
	HistoryDir      string
	HistoryKey      envcheck.Secret
	HistoryPrevious envcheck.Secret
	HistorySync     journal.Sync

	LogLevel  slog.Level
	LogFormat string
	SentryDSN envcheck.Secret

	// failures is how many refused tokens from one address, within 10 minutes,
	// block it for 10 minutes, and for twice as long each further time.
	Failures int

	// Zero: what the packages do by default.
	MaxAttempts         int
	PingEvery, PongWait time.Duration
	WriteWait           time.Duration
	PublishRate         rate.Limit
	PublishBurst        int
}

// deviceID is what an installation may call a device.
var deviceID = regexp.MustCompile(`[A-Za-z0-9_-]{1,64}`)

// Spec lists every variable that the server reads, and where in c it goes.
func (c *Config) Spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "JWT_SECRET", Required: true, Into: envcheck.SecretText(&c.Secret), Check: envcheck.Strong(32),
			Doc: "Key that device tokens are signed with (HS256): at least 32 characters. `go run ./examples/server secret` makes one."},
		{Name: "JWT_SECRET_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretText(&c.Previous), Check: envcheck.Strong(32),
			Doc: "Key that tokens may still be signed with after `JWT_SECRET` was changed. SIGHUP reads the files of both again."},
		{Name: "ALLOWED_DEVICE_ID", Required: true, Into: envcheck.List(&c.Devices), Example: "pi-1",
			Check: envcheck.Each(envcheck.Match(deviceID, "made of letters, digits, hyphens and underscores, 64 at most")),
			Doc:   "Devices that may publish, separated by commas."},
		{Name: "NODE_ENV", Default: "development",
			Into: envcheck.Choice(&c.Production, envcheck.As("production", true), envcheck.As("development", false), envcheck.As("test", false)),
			Doc:  "`production` switches on HSTS and the origin check."},
		{Name: "HOST", Default: "127.0.0.1", Into: envcheck.Text(&c.Host), Check: listenHost,
			Doc: "Address to listen on. Behind a proxy on the same machine the default is right; `0.0.0.0` is every address."},
		{Name: "PORT", Default: "3000", Into: envcheck.Port(&c.Port), Doc: "TCP port to listen on."},
		{Name: "OPERATOR_ADDR", Default: "127.0.0.1:3001", AllowEmpty: true, Into: envcheck.Text(&c.OperatorAddr), Check: listenAddr,
			Doc: "Address for the operator's calls, which need a token with the role admin. Empty: none."},
		{Name: "AUTH_DIR", Into: envcheck.Text(&c.AuthDir), Example: "/var/lib/relay/auth",
			Doc: "Directory, of this server alone, that keeps what refresh tokens are checked against, and revocations. Without it, no refresh tokens, and a revocation lasts until the next start."},
		{Name: "ACCESS_TOKEN_LIFETIME", Default: "15m", Into: envcheck.Duration(&c.AccessLifetime, 2*time.Second, 24*time.Hour),
			Doc: "How long a token that was got for a refresh token is good."},
		{Name: "REFRESH_TOKEN_LIFETIME", Default: "2160h", Into: envcheck.Duration(&c.RefreshLifetime, time.Minute, 10*365*24*time.Hour),
			Doc: "How long a device goes on with the pair that `server token -pair` made, however often it refreshes. After seven days without, it ends too."},
		{Name: "TOKEN_MAX_LIFETIME", Into: envcheck.Duration(&c.TokenMaxLifetime, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "How long any token is worth something after it was issued, whatever it says itself. Without it, as long as it says."},
		{Name: "ON_EXPIRY", Default: "viewer",
			Into: envcheck.Choice(&c.OnExpiry, envcheck.As("viewer", wsauth.OnExpiryView), envcheck.As("close", wsauth.OnExpiryClose)),
			Doc:  "What becomes of a publisher whose right has ended: a `viewer` on the same connection, or `close`."},
		{Name: "DEVICE_SESSIONS", Default: "0", Into: envcheck.Int(&c.DeviceSessions, 0, 10_000),
			Doc: "Connections of one device that may publish at the same time; 0 is any number."},
		{Name: "DEVICE_SESSIONS_OVER", Default: "refuse",
			Into: envcheck.Choice(&c.OverSessions, envcheck.As("refuse", wsauth.OverLimitRefuse), envcheck.As("replace", wsauth.OverLimitReplace)),
			Doc:  "What happens beyond them: `refuse` the new one, or `replace` the oldest."},
		{Name: "TLS_CERT_FILE", Into: envcheck.Text(&c.TLSCert), Example: "/etc/relay/fullchain.pem",
			Doc: "Certificate with its chain, PEM, for TLS without a proxy, 1.2 at least. Read again when it changes, within a minute, and on SIGHUP."},
		{Name: "TLS_KEY_FILE", Into: envcheck.Text(&c.TLSKey), Example: "/etc/relay/privkey.pem",
			Doc: "The certificate's key, PEM. Both or neither."},
		{Name: "HTTP_REDIRECT_ADDR", Into: envcheck.Text(&c.RedirectAddr), Check: listenAddr, Example: "0.0.0.0:80",
			Doc: "Address at which plain HTTP is sent on to https, to hosts that the certificate names."},
		{Name: "TRUSTED_PROXIES", Default: "loopback", Into: envcheck.Func(&c.Proxies, "a list of prefixes", proxies),
			Doc: "Whose `X-Forwarded-For`, `X-Real-IP` and `X-Forwarded-Proto` count: prefixes separated by commas, or `loopback`, `private`, `none`."},
		{Name: "ALLOWED_ORIGINS", Into: envcheck.List(&c.Origins), Check: envcheck.Each(CheckOrigin), Example: "https://art.example",
			Doc: "Origins whose pages may connect in production, separated by commas. Exactly these; without it, the site's own."},
		{Name: "RATE_LIMIT_CONNECTIONS", Default: "10", Into: envcheck.Int(&c.RateConnections, 1, 1_000_000),
			Doc: "WebSocket connections of one client counted in a window; closing gives one back."},
		{Name: "RATE_LIMIT_WINDOW", Default: "1m", Into: envcheck.Duration(&c.RateWindow, time.Second, 24*time.Hour),
			Doc: "How long that window is."},
		{Name: "HISTORY_KEEP", Default: "1000", Into: envcheck.Int(&c.HistoryKeep, 1, 1_000_000),
			Doc: "Messages that are left after a clean-up of the history."},
		{Name: "HISTORY_TRIM_AT", Into: envcheck.Int(&c.HistoryTrimAt, 1, 2_000_000),
			Doc: "Messages beyond which a clean-up happens. Without it, a fifth more than `HISTORY_KEEP`: 1200."},
		{Name: "HISTORY_MAX_AGE", Into: envcheck.Duration(&c.HistoryMaxAge, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "Age at which a message is forgotten. Without it, never."},
		{Name: "HISTORY_MAX_BYTES", Into: envcheck.Bytes(&c.HistoryMaxBytes, leastBytes, 1<<40), Example: "16MiB",
			Doc: "Size that the whole history may have, at least 1MiB. Without it, any."},
		{Name: "HISTORY_DIR", Into: envcheck.Text(&c.HistoryDir), Example: "/var/lib/relay/history",
			Doc: "Directory, of this server alone, that keeps the history, encrypted. Without it, in memory only."},
		{Name: "HISTORY_KEY", Into: envcheck.SecretText(&c.HistoryKey), Check: historyKey,
			Doc: "Key that the history is encrypted with, required with `HISTORY_DIR`: 32 random bytes in base64url, 43 characters, as `server secret` prints them."},
		{Name: "HISTORY_KEY_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretText(&c.HistoryPrevious), Check: historyKey,
			Doc: "Key that the history was encrypted with before `HISTORY_KEY` was changed. After one start with both it is not needed any more."},
		{Name: "HISTORY_FSYNC", Default: "always",
			Into: envcheck.Choice(&c.HistorySync, envcheck.As("always", journal.SyncAlways), envcheck.As("interval", journal.SyncInterval), envcheck.As("never", journal.SyncNever)),
			Doc:  "When a message is forced to the disk: `always` before it is acknowledged, `interval` within a second, or `never`, which leaves it to the system. With the last two, a loss of power costs the newest messages."},
		{Name: "LOG_LEVEL", Default: "info",
			Into: envcheck.Choice(&c.LogLevel, envcheck.As("debug", slog.LevelDebug), envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError)),
			Doc:  "Least level that is logged."},
		{Name: "LOG_FORMAT", Default: "text",
			Into: envcheck.Choice(&c.LogFormat, envcheck.As("text", "text"), envcheck.As("json", "json")),
			Doc:  "Form of the log on standard error."},
		{Name: "SENTRY_DSN", Into: envcheck.SecretText(&c.SentryDSN), Check: trackerDSN,
			Doc: "Where errors and panics are sent to, by Sentry's protocol and without addresses, tokens or text: the tracker's `https://KEY@HOST/PROJECT`. Without it, nowhere."},
	}}
}

// Load reads the environment. Its error names every problem and no secret.
func Load(env envcheck.Lookup) (Config, error) {
	var c Config
	c.Failures = 10
	spec := c.Spec()
	err := spec.Load(env)
	err = errors.Join(err, checkRules(env))
	err = errors.Join(err, c.checkTLS())
	if err != nil {
		return Config{}, fmt.Errorf("the environment is not usable:\n%w", err)
	}
	if c.HistoryTrimAt == 0 {
		c.HistoryTrimAt = c.HistoryKeep + c.HistoryKeep/5
	}
	return c, nil
}

// checkRules checks what holds between variables. Each rule sees its own
// variables alone, so that a broken one is reported even if other variables are
// wrong.
func checkRules(env envcheck.Lookup) error {
	var errs []error
	rule := func(text string, broken func(*Config) bool, names ...string) {
		var c Config
		if c.Spec().Only(names...).Load(env) == nil && broken(&c) {
			errs = append(errs, errors.New(text))
		}
	}
	rule("HISTORY_TRIM_AT must not be below HISTORY_KEEP",
		func(c *Config) bool { return c.HistoryTrimAt != 0 && c.HistoryTrimAt < c.HistoryKeep }, "HISTORY_KEEP", "HISTORY_TRIM_AT")
	rule("HISTORY_KEY is required with HISTORY_DIR (`server secret` makes one; keep it, for nothing else opens the history)",
		func(c *Config) bool { return c.HistoryDir != "" && c.HistoryKey.IsZero() }, "HISTORY_DIR", "HISTORY_KEY")
	rule("HISTORY_KEY has no use without HISTORY_DIR",
		func(c *Config) bool { return c.HistoryDir == "" && !c.HistoryKey.IsZero() }, "HISTORY_DIR", "HISTORY_KEY")
	rule("HISTORY_KEY must not be the same as JWT_SECRET",
		func(c *Config) bool { return c.HistoryKey.Reveal() == c.Secret.Reveal() }, "HISTORY_KEY", "JWT_SECRET")
	return errors.Join(errs...)
}

// Addr is the address to listen on.
func (c *Config) Addr() string { return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) }

// Logger writes a log to w.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Secrets are all that no log, error or event may hold.
func (c *Config) Secrets() (all []string) {
	for _, s := range []envcheck.Secret{c.Secret, c.Previous, c.HistoryKey, c.HistoryPrevious, c.SentryDSN} {
		all = append(all, s.Reveal())
	}
	return all
}

// Tracker says where errors are sent to.
func (c *Config) Tracker() tracker.Config {
	environment := "development"
	if c.Production {
		environment = "production"
	}
	return tracker.Config{DSN: c.SentryDSN.Reveal(), Environment: environment, Secrets: c.Secrets()}
}

// Keys is the ring: the secret signs, the previous one is only accepted.
func (c *Config) Keys() []wsauth.Key {
	keys := []wsauth.Key{{Secret: []byte(c.Secret.Reveal())}}
	if old := c.Previous.Reveal(); old != "" && old != c.Secret.Reveal() {
		keys = append(keys, wsauth.Key{Secret: []byte(old)})
	}
	return keys
}
