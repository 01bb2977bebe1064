package main

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

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
	"golang.org/x/time/rate"
)

type lookup = envcheck.Lookup

// config is what the environment says, and below it what only tests change.
type config struct {
	secret     envcheck.Secret
	previous   envcheck.Secret
	devices    []string
	production bool
	host       string
	port       uint16

	operatorAddr string

	authDir          string
	accessLifetime   time.Duration
	refreshLifetime  time.Duration
	tokenMaxLifetime time.Duration
	onExpiry         wsauth.OnExpiry
	deviceSessions   int
	overSessions     wsauth.OverLimit

	tlsCert, tlsKey string // files
	redirectAddr    string

	proxies         []netip.Prefix
	origins         []string
	rateConnections int
	rateWindow      time.Duration

	historyKeep     int
	historyTrimAt   int
	historyMaxAge   time.Duration
	historyMaxBytes int64
	historyDir      string
	historyKey      envcheck.Secret
	historyPrevious envcheck.Secret
	historySync     journal.Sync

	logLevel  slog.Level
	logFormat string
	sentryDSN envcheck.Secret

	// failures is how many refused tokens from one address, within 10 minutes, block
	// it for 10 minutes, and for twice as long each further time.
	failures int

	// Zero: what the packages do by default.
	maxAttempts         int
	pingEvery, pongWait time.Duration
	writeWait           time.Duration
	publishRate         rate.Limit
	publishBurst        int
}

// deviceID is what an installation may call a device.
var deviceID = regexp.MustCompile(`[A-Za-z0-9_-]{1,64}`)

// spec lists every variable that the server reads, and where in c it goes.
func (c *config) spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "JWT_SECRET", Required: true, Into: envcheck.SecretText(&c.secret), Check: envcheck.Strong(32),
			Doc: "Key that device tokens are signed with (HS256): at least 32 characters. `go run ./examples/server secret` makes one."},
		{Name: "JWT_SECRET_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretText(&c.previous), Check: envcheck.Strong(32),
			Doc: "Key that tokens may still be signed with after `JWT_SECRET` was changed. SIGHUP reads the files of both again."},
		{Name: "ALLOWED_DEVICE_ID", Required: true, Into: envcheck.List(&c.devices), Example: "pi-1",
			Check: envcheck.Each(envcheck.Match(deviceID, "made of letters, digits, hyphens and underscores, 64 at most")),
			Doc:   "Devices that may publish, separated by commas."},
		{Name: "NODE_ENV", Default: "development",
			Into: envcheck.Choice(&c.production, envcheck.As("production", true), envcheck.As("development", false), envcheck.As("test", false)),
			Doc:  "`production` switches on HSTS and the origin check."},
		{Name: "HOST", Default: "127.0.0.1", Into: envcheck.Text(&c.host), Check: listenHost,
			Doc: "Address to listen on. Behind a proxy on the same machine the default is right; `0.0.0.0` is every address."},
		{Name: "PORT", Default: "3000", Into: envcheck.Port(&c.port), Doc: "TCP port to listen on."},
		{Name: "OPERATOR_ADDR", Default: "127.0.0.1:3001", AllowEmpty: true, Into: envcheck.Text(&c.operatorAddr), Check: listenAddr,
			Doc: "Address for the operator's calls, which need a token with the role admin. Empty: none."},
		{Name: "AUTH_DIR", Into: envcheck.Text(&c.authDir), Example: "/var/lib/relay/auth",
			Doc: "Directory, of this server alone, that keeps what refresh tokens are checked against, and revocations. Without it, no refresh tokens, and a revocation lasts until the next start."},
		{Name: "ACCESS_TOKEN_LIFETIME", Default: "15m", Into: envcheck.Duration(&c.accessLifetime, 2*time.Second, 24*time.Hour),
			Doc: "How long a token that was got for a refresh token is good."},
		{Name: "REFRESH_TOKEN_LIFETIME", Default: "2160h", Into: envcheck.Duration(&c.refreshLifetime, time.Minute, 10*365*24*time.Hour),
			Doc: "How long a device goes on with the pair that `server token -pair` made, however often it refreshes. After seven days without, it ends too."},
		{Name: "TOKEN_MAX_LIFETIME", Into: envcheck.Duration(&c.tokenMaxLifetime, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "How long any token is worth something after it was issued, whatever it says itself. Without it, as long as it says."},
		{Name: "ON_EXPIRY", Default: "viewer",
			Into: envcheck.Choice(&c.onExpiry, envcheck.As("viewer", wsauth.BecomeViewer), envcheck.As("close", wsauth.CloseConnection)),
			Doc:  "What becomes of a publisher whose right has ended: a `viewer` on the same connection, or `close`."},
		{Name: "DEVICE_SESSIONS", Default: "0", Into: envcheck.Int(&c.deviceSessions, 0, 10_000),
			Doc: "Connections of one device that may publish at the same time; 0 is any number."},
		{Name: "DEVICE_SESSIONS_OVER", Default: "refuse",
			Into: envcheck.Choice(&c.overSessions, envcheck.As("refuse", wsauth.RefuseNew), envcheck.As("replace", wsauth.ReplaceOld)),
			Doc:  "What happens beyond them: `refuse` the new one, or `replace` the oldest."},
		{Name: "TLS_CERT_FILE", Into: envcheck.Text(&c.tlsCert), Example: "/etc/relay/fullchain.pem",
			Doc: "Certificate with its chain, PEM, for TLS without a proxy, 1.2 at least. Read again when it changes, within a minute, and on SIGHUP."},
		{Name: "TLS_KEY_FILE", Into: envcheck.Text(&c.tlsKey), Example: "/etc/relay/privkey.pem",
			Doc: "The certificate's key, PEM. Both or neither."},
		{Name: "HTTP_REDIRECT_ADDR", Into: envcheck.Text(&c.redirectAddr), Check: listenAddr, Example: "0.0.0.0:80",
			Doc: "Address at which plain HTTP is sent on to https, to hosts that the certificate names."},
		{Name: "TRUSTED_PROXIES", Default: "loopback", Into: envcheck.Func(&c.proxies, "a list of prefixes", clientip.ParsePrefixes),
			Doc: "Whose `X-Forwarded-For`, `X-Real-IP` and `X-Forwarded-Proto` count: prefixes separated by commas, or `loopback`, `private`, `none`."},
		{Name: "ALLOWED_ORIGINS", Into: envcheck.List(&c.origins), Check: envcheck.Each(origin), Example: "https://art.example",
			Doc: "Origins whose pages may connect in production, separated by commas. Exactly these; without it, the site's own."},
		{Name: "RATE_LIMIT_CONNECTIONS", Default: "10", Into: envcheck.Int(&c.rateConnections, 1, 1_000_000),
			Doc: "WebSocket connections of one client counted in a window; closing gives one back."},
		{Name: "RATE_LIMIT_WINDOW", Default: "1m", Into: envcheck.Duration(&c.rateWindow, time.Second, 24*time.Hour),
			Doc: "How long that window is."},
		{Name: "HISTORY_KEEP", Default: "1000", Into: envcheck.Int(&c.historyKeep, 1, 1_000_000),
			Doc: "Messages that are left after a clean-up of the history."},
		{Name: "HISTORY_TRIM_AT", Into: envcheck.Int(&c.historyTrimAt, 1, 2_000_000),
			Doc: "Messages beyond which a clean-up happens. Without it, a fifth more than `HISTORY_KEEP`: 1200."},
		{Name: "HISTORY_MAX_AGE", Into: envcheck.Duration(&c.historyMaxAge, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "Age at which a message is forgotten. Without it, never."},
		{Name: "HISTORY_MAX_BYTES", Into: envcheck.Bytes(&c.historyMaxBytes, leastBytes, 1<<40), Example: "16MiB",
			Doc: "Size that the whole history may have, at least 1MiB. Without it, any."},
		{Name: "HISTORY_DIR", Into: envcheck.Text(&c.historyDir), Example: "/var/lib/relay/history",
			Doc: "Directory, of this server alone, that keeps the history, encrypted. Without it, in memory only."},
		{Name: "HISTORY_KEY", Into: envcheck.SecretText(&c.historyKey), Check: historyKey,
			Doc: "Key that the history is encrypted with, required with `HISTORY_DIR`: 32 random bytes in base64url, 43 characters, as `server secret` prints them."},
		{Name: "HISTORY_KEY_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretText(&c.historyPrevious), Check: historyKey,
			Doc: "Key that the history was encrypted with before `HISTORY_KEY` was changed. After one start with both it is not needed any more."},
		{Name: "HISTORY_FSYNC", Default: "always",
			Into: envcheck.Choice(&c.historySync, envcheck.As("always", journal.Always), envcheck.As("interval", journal.Interval), envcheck.As("never", journal.Never)),
			Doc:  "When a message is forced to the disk: `always` before it is acknowledged, `interval` within a second, or `never`, which leaves it to the system. With the last two, a loss of power costs the newest messages."},
		{Name: "LOG_LEVEL", Default: "info",
			Into: envcheck.Choice(&c.logLevel, envcheck.As("debug", slog.LevelDebug), envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError)),
			Doc:  "Least level that is logged."},
		{Name: "LOG_FORMAT", Default: "text",
			Into: envcheck.Choice(&c.logFormat, envcheck.As("text", "text"), envcheck.As("json", "json")),
			Doc:  "Form of the log on standard error."},
		{Name: "SENTRY_DSN", Into: envcheck.SecretText(&c.sentryDSN), Check: parseDSN,
			Doc: "Where errors and panics are sent to, by Sentry's protocol and without addresses, tokens or text: the tracker's `https://KEY@HOST/PROJECT`. Without it, nowhere."},
	}}
}

// loadConfig reads the environment. Its error names every problem and no secret.
func loadConfig(env lookup) (config, error) {
	var c config
	c.failures = 10
	spec := c.spec()
	err := spec.Load(env)
	err = errors.Join(err, together(env))
	err = errors.Join(err, c.checkTLS())
	if err != nil {
		return config{}, fmt.Errorf("the environment is not usable:\n%w", err)
	}
	if c.historyTrimAt == 0 {
		c.historyTrimAt = c.historyKeep + c.historyKeep/5
	}
	return c, nil
}

// together checks what is between variables, those of each rule by themselves, so
// that every problem is told at once also where something else is wrong.
func together(env lookup) error {
	var errs []error
	rule := func(text string, broken func(*config) bool, names ...string) {
		var c config
		if c.spec().Only(names...).Load(env) == nil && broken(&c) {
			errs = append(errs, errors.New(text))
		}
	}
	rule("HISTORY_TRIM_AT must not be below HISTORY_KEEP",
		func(c *config) bool { return c.historyTrimAt != 0 && c.historyTrimAt < c.historyKeep }, "HISTORY_KEEP", "HISTORY_TRIM_AT")
	rule("HISTORY_KEY is required with HISTORY_DIR (`server secret` makes one; keep it, for nothing else opens the history)",
		func(c *config) bool { return c.historyDir != "" && c.historyKey.IsZero() }, "HISTORY_DIR", "HISTORY_KEY")
	rule("HISTORY_KEY has no use without HISTORY_DIR",
		func(c *config) bool { return c.historyDir == "" && !c.historyKey.IsZero() }, "HISTORY_DIR", "HISTORY_KEY")
	rule("HISTORY_KEY must not be the same as JWT_SECRET",
		func(c *config) bool { return c.historyKey.Reveal() == c.secret.Reveal() }, "HISTORY_KEY", "JWT_SECRET")
	return errors.Join(errs...)
}

// checkVerb prints every variable with its source and state.
func checkVerb(env lookup, stdout io.Writer) int {
	var c config
	if err := c.spec().WriteReport(stdout, env); err != nil {
		return exitFailed
	}
	c, err := loadConfig(env)
	if err == nil {
		err = c.reportTLS(stdout, time.Now())
	}
	if err != nil {
		fmt.Fprintf(stdout, "\n%v\n", err)
		return exitFailed
	}
	fmt.Fprintln(stdout, "\nThe environment is usable.")
	return exitOK
}

func (c *config) addr() string { return net.JoinHostPort(c.host, strconv.Itoa(int(c.port))) }

func (c *config) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// origin accepts what the transport can compare with a browser's Origin.
func origin(s string) error {
	if _, err := wsconn.New(wsconn.Config{Origins: wsconn.Origins{Allow: []string{s}}}); err != nil {
		return envcheck.CheckReason("must be an origin like https://art.example, without a path")
	}
	return nil
}

// listenHost accepts an address of this machine, not a name, which could turn out
// to be another address than the one that was meant.
func listenHost(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "localhost" {
		return envcheck.CheckReason("must be an IP address, like 127.0.0.1 or 0.0.0.0, or localhost")
	}
	return nil
}

// listenAddr accepts such an address with a port. An address without a host would
// be every address, which for the operator's calls must be spelt out.
func listenAddr(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || listenHost(host) != nil || portErr != nil || n == 0 {
		return envcheck.CheckReason("must be an address like 127.0.0.1:3001, or empty for none")
	}
	return nil
}

// historyKey accepts the one spelling of 32 bytes that newSecret makes.
func historyKey(s string) error {
	if _, err := decodeKey(s); err != nil {
		return envcheck.CheckReason("must be 32 random bytes in base64url without padding, 43 characters, as `server secret` prints them")
	}
	return envcheck.Strong(32)(s)
}

// leastBytes is room for some of the largest messages.
const leastBytes = 1 << 20
