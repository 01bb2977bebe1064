// Package config reads the server's configuration from its environment.
package config

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/socket"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// Config is the server's configuration. [Load] sets it from the environment.
// Only tests change the fields after SentryDSN.
type Config struct {
	Secret     envcheck.Secret[string]
	Previous   envcheck.Secret[string]
	PublicKeys []jwtauth.Key
	Issuer     string
	KeySet     string // URL
	Audience   string
	Claim      string // that names the device
	Devices    []string
	Rooms      []string // none: one conversation
	Production bool
	Host       string // or unix:PATH
	Port       uint16

	SocketMode  fs.FileMode
	SocketGroup string

	OperatorAddrs []string

	AuthDir          string
	AccessLifetime   time.Duration
	RefreshLifetime  time.Duration
	TokenMaxLifetime time.Duration
	OnExpiry         wsauth.OnExpiry
	DeviceSessions   int
	OverSessions     wsauth.OverLimit

	TLSCert, TLSKey string // files
	ACMEDomains     []string
	ACMEDir         string
	ACMEStaging     bool
	ACMEURL         string
	RedirectAddr    string

	Proxies         []netip.Prefix
	Origins         []string
	RateConnections int
	RateWindow      time.Duration
	RateNetworks    map[netip.Prefix]int // as in ratelimit.Config

	Page         *web.Page // if nil, the page is as shipped
	EmbedOrigins []string

	MaxConnections    int // at least 1
	UpgradesPerSecond int // 0 is any number
	Compression       bool

	HistoryKeep     int
	HistoryTrimAt   int
	HistoryMaxAge   time.Duration
	HistoryMaxBytes int64
	HistoryKeepText int64 // 0: HistoryKeep decides
	HistoryDir      string
	HistoryKey      envcheck.Secret[string]
	HistoryPrevious envcheck.Secret[string]
	HistorySync     journal.Sync

	Delay        time.Duration // of what viewers see
	ShowWatching bool

	LivesDir      string
	LivesKeep     int
	LivesMaxAge   time.Duration
	LivesMaxBytes int64

	RedisURL      envcheck.Secret[string]
	RedisPrefix   string
	RedisReplicas int
	Node          string

	LogLevel  slog.Level
	LogFormat string
	SentryDSN envcheck.Secret[string]

	// Failures is the number of wrong tokens from one address, within 10
	// minutes, after which the address may send no tokens for 10 minutes, and
	// for twice as long each further time.
	Failures int

	// If one of these is zero, the default of its package holds.
	MaxAttempts         int
	PingEvery, PongWait time.Duration
	WriteWait           time.Duration
	PublishRate         rate.Limit
	PublishBurst        int

	// EngineCheck and EngineTimeout are Check and Timeout of [engine.Config].
	// EnginePatience is how long a message of a publisher waits for the engine,
	// by default 10 seconds.
	EngineCheck, EngineTimeout, EnginePatience time.Duration
}

// Spec returns every variable that the server reads, each with the field of c
// that it sets.
func (c *Config) Spec() envcheck.Spec {
	return envcheck.Spec{Vars: []envcheck.Var{
		{Name: "JWT_SECRET", Into: envcheck.SecretOf(&c.Secret, envcheck.Text), Check: strongSecret,
			Doc: "Key that signs device tokens (HS256), at least 32 characters. `server secret` makes one. Without it, the server signs nothing: it has no refresh tokens, and its commands need a Unix socket in `OPERATOR_ADDR`."},
		{Name: "JWT_SECRET_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretOf(&c.Previous, envcheck.Text), Check: strongSecret,
			Doc: "Old key, which the server still accepts after `JWT_SECRET` was changed. SIGHUP reads the files of both keys again."},
		{Name: "JWT_PUBLIC_KEY", AllowFile: true, Into: envcheck.Func(&c.PublicKeys, "public keys in PEM", publicKeys),
			Doc: "Public keys in PEM (Ed25519, P-256, P-384), whose tokens the server accepts. `server token -new-key FILE` makes a pair, and `server token -key FILE` signs with it on another machine, so that a stolen server holds nothing that signs."},
		{Name: "JWT_ISSUER", Into: envcheck.Text(&c.Issuer), Example: "https://id.example",
			Doc: "Provider whose tokens the server accepts: their `iss`. Its keys are found by OpenID Connect Discovery, or at `JWT_JWKS_URL`."},
		{Name: "JWT_JWKS_URL", Into: envcheck.Text(&c.KeySet), Example: "https://id.example/keys",
			Doc: "Address of the provider's key set (JWKS), https only."},
		{Name: "JWT_AUDIENCE", Into: envcheck.Text(&c.Audience), Example: "relay",
			Doc: "Required `aud` of device tokens. Without it, a token with an `aud` is refused."},
		{Name: "JWT_DEVICE_CLAIM", Default: "device", Into: envcheck.Text(&c.Claim),
			Doc: "Claim that names the device; `sub` for most providers."},
		{Name: "ALLOWED_DEVICE_ID", Required: true, Into: envcheck.ListOf(&c.Devices, envcheck.Text), Example: "pi-1",
			Check: envcheck.Each(deviceName),
			Doc:   "Devices that may publish, separated by commas."},
		{Name: "ROOMS", Into: envcheck.ListOf(&c.Rooms, envcheck.Text), Check: envcheck.Each(roomName), Example: "pi-1,pi-2",
			Doc: "Rooms, separated by commas, each a conversation of its own with its page at `/r/ROOM/`; see [Rooms](#rooms). A device publishes in the room of its name. `*` is a room for each device in `ALLOWED_DEVICE_ID`. Without it, there is one conversation at `/`."},
		{Name: "NODE_ENV", Default: "development",
			Into: envcheck.Choice(&c.Production, envcheck.As("production", true), envcheck.As("development", false), envcheck.As("test", false)),
			Doc:  "`production` switches on HSTS and the origin check."},
		{Name: "HOST", Default: "127.0.0.1", Into: envcheck.Text(&c.Host), Check: publicHost,
			Doc: "Address to listen on. Keep the default behind a proxy on the same machine; `0.0.0.0` is every address. `unix:/PATH` is a Unix socket for a proxy on the same machine, which costs less than TCP. The server then takes every client's address from the proxy, and counts all requests without one as one client."},
		{Name: "PORT", Default: "3000", Into: envcheck.Port(&c.Port), Doc: "TCP port to listen on. A Unix socket has none."},
		{Name: "SOCKET_MODE", Default: "0660", Into: envcheck.Func(&c.SocketMode, "an octal mode", socketMode),
			Doc: "Mode of the Unix socket in `HOST`: `0660` for the server's user and the socket's group, `0600` for its user alone. A mode for all users is refused, because every process that may connect can choose the addresses of clients."},
		{Name: "SOCKET_GROUP", Into: envcheck.Text(&c.SocketGroup), Check: envcheck.Match(groupName, "the name or the number of a group"), Example: "www-data",
			Doc: "Group of the Unix socket in `HOST`, to which the proxy belongs. The server's user must be a member, or root. Without it, the group of a new file in that directory: the directory's group if it has the setgid bit, or else the user's."},
		{Name: "OPERATOR_ADDR", Default: "127.0.0.1:3001", AllowEmpty: true, Into: envcheck.ListOf(&c.OperatorAddrs, envcheck.Text), Check: envcheck.Each(operatorAddr), Example: "unix:/run/relay/operator.sock,127.0.0.1:3001",
			Doc: "Addresses for the operator's calls, separated by commas. `unix:/PATH` is a Unix socket for processes of the server's user and root, which need no token. `HOST:PORT` is for programs with a token, such as Prometheus. The commands use the first socket, or else the first address. If empty, the server takes no such calls."},
		{Name: "AUTH_DIR", Into: envcheck.Text(&c.AuthDir), Example: "/var/lib/relay/auth",
			Doc: "Directory that keeps the families of refresh tokens, the revocations and the blocks. No other server may use it. Without it, there are no refresh tokens, and revocations and blocks last until the next start."},
		{Name: "ACCESS_TOKEN_LIFETIME", Default: "15m", Into: envcheck.Duration(&c.AccessLifetime, 2*time.Second, 24*time.Hour),
			Doc: "Lifetime of an access token that a device gets for its refresh token."},
		{Name: "REFRESH_TOKEN_LIFETIME", Default: "2160h", Into: envcheck.Duration(&c.RefreshLifetime, time.Minute, 10*365*24*time.Hour),
			Doc: "Lifetime of a family of refresh tokens, which begins with `server token -pair`, however often the device refreshes. A family also ends after seven days without a refresh."},
		{Name: "TOKEN_MAX_LIFETIME", Into: envcheck.Duration(&c.TokenMaxLifetime, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "Maximum lifetime of any token since its issue, even if the token's own expiry is later. Without it, only the token's own expiry counts."},
		{Name: "ON_EXPIRY", Default: "viewer",
			Into: envcheck.Choice(&c.OnExpiry, envcheck.As("viewer", wsauth.OnExpiryView), envcheck.As("close", wsauth.OnExpiryClose)),
			Doc:  "Effect on a publisher when its permission ends: `viewer` makes it a viewer on the same connection, `close` closes the connection."},
		{Name: "DEVICE_SESSIONS", Default: "0", Into: envcheck.Number(&c.DeviceSessions, 0, 10_000),
			Doc: "Number of connections of one device that may publish at the same time; 0 is any number."},
		{Name: "DEVICE_SESSIONS_OVER", Default: "refuse",
			Into: envcheck.Choice(&c.OverSessions, envcheck.As("refuse", wsauth.OverLimitRefuse), envcheck.As("replace", wsauth.OverLimitReplace)),
			Doc:  "Effect of a connection beyond `DEVICE_SESSIONS`: `refuse` refuses the new connection, `replace` closes the oldest."},
		{Name: "TLS_CERT_FILE", Into: envcheck.Text(&c.TLSCert), Example: "/etc/relay/fullchain.pem",
			Doc: "File with the certificate and its chain (PEM), for TLS without a proxy, version 1.2 at least. The server reads it again within a minute after a change, and on SIGHUP."},
		{Name: "TLS_KEY_FILE", Into: envcheck.Text(&c.TLSKey), Example: "/etc/relay/privkey.pem",
			Doc: "File with the certificate's private key (PEM)."},
		{Name: "TLS_ACME_DOMAINS", Into: envcheck.ListOf(&c.ACMEDomains, envcheck.Text), Check: envcheck.Each(domainName), Example: "art.example,www.art.example",
			Doc: "Domains for which the server gets and renews certificates by itself, from Let's Encrypt, whose terms you accept by that. Let's Encrypt must reach the server at port 443 (`PORT`) or 80 (`HTTP_REDIRECT_ADDR`) of each domain. Several servers need the same `TLS_ACME_DIR`, a directory that they share, because the question may reach any of them; or let the load balancer end TLS."},
		{Name: "TLS_ACME_DIR", Into: envcheck.Text(&c.ACMEDir), Example: "/var/lib/relay/acme",
			Doc: "Directory that keeps these certificates and their keys, for the server's user alone (mode 0700)."},
		{Name: "TLS_ACME_STAGING", Default: "false", Into: envcheck.Bool(&c.ACMEStaging),
			Doc: "`true` gets certificates for tests, which no browser trusts, and whose limits are higher. Use another `TLS_ACME_DIR` for it."},
		{Name: "TLS_ACME_URL", Into: envcheck.Text(&c.ACMEURL), Check: httpsURL, Example: "https://ca.example/acme/directory",
			Doc: "Directory URL (RFC 8555) of another authority than Let's Encrypt."},
		{Name: "HTTP_REDIRECT_ADDR", Into: envcheck.Text(&c.RedirectAddr), Check: listenAddr, Example: "0.0.0.0:80",
			Doc: "Address that redirects plain HTTP to https, for the hosts that the certificate names, and answers the authority of `TLS_ACME_DOMAINS`."},
		{Name: "TRUSTED_PROXIES", Default: "loopback", Into: envcheck.Func(&c.Proxies, "a list of prefixes", proxies),
			Doc: "Proxies whose `X-Forwarded-For`, `X-Real-IP` and `X-Forwarded-Proto` the server trusts: prefixes separated by commas, or `loopback`, `private`, `none`. The proxy at a Unix socket in `HOST` is always trusted, too."},
		{Name: "ALLOWED_ORIGINS", Into: envcheck.ListOf(&c.Origins, envcheck.Text), Check: envcheck.Each(CheckOrigin), Example: "https://art.example",
			Doc: "Origins whose pages may connect in production, separated by commas, and no others. Without it, only the site's own origin may."},
		{Name: "PAGE_DIR", Into: envcheck.Func(&c.Page, "a directory with usable files", page), Example: "/etc/relay/page",
			Doc: "Directory with the words, the style and the pictures of your page; see [The page](#the-page). Without it, the page is as shipped."},
		{Name: "EMBED_ORIGINS", Into: envcheck.ListOf(&c.EmbedOrigins, envcheck.Text), Check: envcheck.Each(CheckOrigin), Example: "https://museum.example",
			Doc: "Origins whose pages may show this page in a frame, separated by commas; see [The page](#the-page). Without it, no page may."},
		{Name: "RATE_LIMIT_CONNECTIONS", Default: "10", Into: envcheck.Number(&c.RateConnections, 1, maxRate),
			Doc: "Number of WebSockets and streams of events that one client can open in a window. One that closes no longer counts. Reading a life at `/lives` counts as a stream."},
		{Name: "RATE_LIMIT_WINDOW", Default: "1m", Into: envcheck.Duration(&c.RateWindow, time.Second, 24*time.Hour),
			Doc: "Length of the window of `RATE_LIMIT_CONNECTIONS`."},
		{Name: "RATE_LIMIT_NETWORKS", Into: envcheck.Func(&c.RateNetworks, "a list of networks with limits", networks), Example: "203.0.113.0/24=500,198.51.100.7=none",
			Doc: "Limits of their own for networks, such as an office or a venue whose visitors share an address, separated by commas. All of such a network counts as one client. `none` is no limit but `MAX_CONNECTIONS` and `UPGRADES_PER_SECOND`."},
		{Name: "MAX_CONNECTIONS", Into: envcheck.Number(&c.MaxConnections, 1, mostConnections), Example: "20000",
			Doc: "Number of WebSockets and streams of events that all clients together can have open. A further one gets a 503 with `Retry-After`. Each takes a file descriptor, so the default is nine tenths of those that the process may open (`RLIMIT_NOFILE`, `LimitNOFILE` of systemd), and leaves at least 64 for files and for HTTP."},
		{Name: "UPGRADES_PER_SECOND", Default: "1000", Into: envcheck.Number(&c.UpgradesPerSecond, 0, 1_000_000),
			Doc: "Number of WebSockets and streams of events that all clients together can open in a second, and twice as many at once. A further one gets a 429 with `Retry-After`. 0 is any number."},
		{Name: "COMPRESSION", Default: "on", Into: envcheck.Choice(&c.Compression, envcheck.As("on", true), envcheck.As("off", false)),
			Doc: "`on` compresses the history and other long frames for clients that offer it (permessage-deflate), once for all of them. Safari gets them as they are, because some of its versions then fail. `off` compresses nothing."},
		{Name: "HISTORY_KEEP", Default: strconv.Itoa(defaultKeep), Into: envcheck.Number(&c.HistoryKeep, 1, 1_000_000),
			Doc: "Number of messages that a clean-up of the history leaves."},
		{Name: "HISTORY_TRIM_AT", Into: envcheck.Number(&c.HistoryTrimAt, 1, 2_000_000),
			Doc: "Number of messages beyond which a clean-up happens. Without it, a fifth more than `HISTORY_KEEP`: 1200 by default."},
		{Name: "HISTORY_KEEP_TEXT", Into: envcheck.Bytes(&c.HistoryKeepText, leastText, mostText), Example: "64KiB",
			Doc: "Text that a clean-up of the history leaves, in place of `HISTORY_KEEP`: what a visitor can read back, however the device cuts its text into messages. A clean-up happens when there is a fifth more. 64KiB are about 11,000 words. Without it, `HISTORY_KEEP` decides: 1000 messages of a word each are a minute or two."},
		{Name: "HISTORY_MAX_AGE", Into: envcheck.Duration(&c.HistoryMaxAge, time.Second, 10*365*24*time.Hour), Example: "24h",
			Doc: "Age at which a message leaves the history. The last prompt, memory figures and number of restarts stay until the next restart signal. Without it, messages have no maximum age."},
		{Name: "HISTORY_MAX_BYTES", Into: envcheck.Bytes(&c.HistoryMaxBytes, leastBytes, 1<<40), Example: "16MiB",
			Doc: "Largest size of the whole history, at least 1MiB. Without it, the size has no limit, or with `HISTORY_KEEP_TEXT` 256 times as much as the text, and at least 1MiB."},
		{Name: "HISTORY_DIR", Into: envcheck.Text(&c.HistoryDir), Example: "/var/lib/relay/history",
			Doc: "Directory that keeps the history, encrypted. No other server may use it. Without it and `REDIS_URL`, the history is in memory only."},
		{Name: "HISTORY_KEY", Into: envcheck.SecretOf(&c.HistoryKey, envcheck.Text), Check: historyKey,
			Doc: "Key that encrypts the history and the lives that are kept: 32 random bytes in base64url, 43 characters, as `server secret` makes them."},
		{Name: "HISTORY_KEY_PREVIOUS", AllowEmpty: true, Into: envcheck.SecretOf(&c.HistoryPrevious, envcheck.Text), Check: historyKey,
			Doc: "Key that encrypted the history before `HISTORY_KEY` was changed. With `HISTORY_DIR`, it is no longer needed after one start with both keys; with `REDIS_URL`, after the next restart signal, import or erasure of everything. With `LIVES_DIR`, the lives that it encrypted need it until they are gone."},
		{Name: "HISTORY_FSYNC", Default: "always",
			Into: envcheck.Choice(&c.HistorySync, envcheck.As("always", journal.SyncAlways), envcheck.As("interval", journal.SyncInterval), envcheck.As("never", journal.SyncNever)),
			Doc:  "Time at which a message is forced to the disk: `always` before it is acknowledged, `interval` within a second, `never` when the operating system chooses. With `interval` and `never`, a loss of power loses the newest messages."},
		{Name: "BROADCAST_DELAY", Into: envcheck.Duration(&c.Delay, time.Second, time.Hour), Example: "10s",
			Doc: "Time for which viewers do not see what is published yet. What `server erase` or `server hold` takes back within this time, no viewer has seen; of several servers, each must hear of it half of the time before, or it shows nothing more until it does. Without it, viewers see everything at once."},
		{Name: "SHOW_WATCHING", Default: "false", Into: envcheck.Bool(&c.ShowWatching),
			Doc: "Whether the page says how many watch, on all servers that share an engine, as of the newest message."},
		{Name: "LIVES_DIR", Into: envcheck.Text(&c.LivesDir), Example: "/var/lib/relay/lives",
			Doc: "Directory that keeps each life of the device after it has ended, as viewers saw it, encrypted with `HISTORY_KEY`. Visitors see them again at `/lives`, or at `/r/ROOM/lives` with `ROOMS`. No other server may use it; each server keeps its own. Without it, nothing of a life remains after its end."},
		{Name: "LIVES_KEEP", Default: strconv.Itoa(lives.DefaultKeep), Into: envcheck.Number(&c.LivesKeep, 1, 10_000),
			Doc: "Number of lives that are kept, of each room. The oldest goes first."},
		{Name: "LIVES_MAX_AGE", Default: "720h", Into: envcheck.Duration(&c.LivesMaxAge, time.Minute, 10*365*24*time.Hour),
			Doc: "Time for which a life is kept after its end: 30 days by default."},
		{Name: "LIVES_MAX_BYTES", Default: "8MiB", Into: envcheck.Bytes(&c.LivesMaxBytes, leastLife, mostLife),
			Doc: "Largest size of the messages of a life that are kept. The end of a larger life is left out, and its page says so. A life takes up to three times as much in memory while it runs, for each room, and on the disk."},
		{Name: "REDIS_URL", Into: envcheck.SecretOf(&c.RedisURL, envcheck.Text), Check: engineURL,
			Doc: "Address of Redis 7 or Valkey 8, over which several servers share the history, such as `redis://USER:PASSWORD@engine.example:6379`. `rediss://` is TLS; `?addr=HOST:PORT`, repeated, names more nodes of a cluster, or more Sentinels if `master_set=NAME` names their master. Without it, this server is alone."},
		{Name: "REDIS_PREFIX", Default: "relay", Into: envcheck.Text(&c.RedisPrefix), Check: envcheck.Match(prefix, "made of letters, digits, hyphens, underscores and dots, 64 at most"),
			Doc: "Beginning of all keys in the engine. Servers with the same prefix act as one."},
		{Name: "REDIS_REPLICAS", Default: "0", Into: envcheck.Number(&c.RedisReplicas, 0, 100),
			Doc: "Number of replicas of the engine that must have an erasure before the server reports it as done."},
		{Name: "NODE_NAME", Into: envcheck.Text(&c.Node), Check: envcheck.Match(nodeName, "made of letters, digits, hyphens, underscores and dots, 64 at most"), Example: "relay-1",
			Doc: "Name of this server among those that share `REDIS_URL`. Without it, the machine's host name."},
		{Name: "LOG_LEVEL", Default: "info",
			Into: envcheck.Choice(&c.LogLevel, envcheck.As("debug", slog.LevelDebug), envcheck.As("info", slog.LevelInfo), envcheck.As("warn", slog.LevelWarn), envcheck.As("error", slog.LevelError)),
			Doc:  "Lowest level that is logged."},
		{Name: "LOG_FORMAT", Default: "text",
			Into: envcheck.Enum(&c.LogFormat, "text", "json"),
			Doc:  "Format of the log on standard error."},
		{Name: "SENTRY_DSN", Into: envcheck.SecretOf(&c.SentryDSN, envcheck.Text), Check: trackerDSN,
			Doc: "Error tracker that gets errors and panics by Sentry's protocol, without addresses, tokens or text: its `https://KEY@HOST/PROJECT`. Without it, the server sends them nowhere."},
	}, Rules: []envcheck.Rule{
		envcheck.RuleFunc("is required, unless JWT_PUBLIC_KEY or JWT_ISSUER is set",
			func() bool { return c.Secret.Reveal() != "" || c.PublicKeys != nil || c.Issuer != "" }, "JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_ISSUER"),
		envcheck.RuleFunc("must be 1000 names at most, or * alone, in which case every name in ALLOWED_DEVICE_ID must begin with a letter or a digit",
			c.usableRooms, "ROOMS", "ALLOWED_DEVICE_ID"),
		envcheck.RequiredIf("JWT_SECRET", "JWT_SECRET_PREVIOUS"),
		envcheck.RequiredIf("JWT_ISSUER", "JWT_JWKS_URL"),
		envcheck.RuleFunc("must be an https URL of a provider, such as https://id.example, and so must JWT_JWKS_URL",
			func() bool { return c.Issuer == "" || usableProvider(c.Provider()) }, "JWT_ISSUER", "JWT_JWKS_URL"),
		envcheck.RuleFunc("is for a Unix socket in HOST", func() bool { return c.SocketGroup == "" || c.onSocket() }, "SOCKET_GROUP", "HOST"),
		envcheck.RuleFunc("cannot be set together with a Unix socket in HOST, where the proxy ends TLS", func() bool { return c.TLSCert == "" || !c.onSocket() }, "TLS_CERT_FILE", "HOST"),
		envcheck.RuleFunc("cannot be set together with a Unix socket in HOST, where the proxy ends TLS", func() bool { return c.ACMEDomains == nil || !c.onSocket() }, "TLS_ACME_DOMAINS", "HOST"),
		envcheck.Together("TLS_CERT_FILE", "TLS_KEY_FILE"),
		envcheck.RuleFunc("is required if HTTP_REDIRECT_ADDR is set, or TLS_ACME_DOMAINS is",
			func() bool { return c.RedirectAddr == "" || c.EndsTLS() }, "TLS_CERT_FILE", "HTTP_REDIRECT_ADDR", "TLS_ACME_DOMAINS"),
		envcheck.RuleFunc("cannot be set together with TLS_CERT_FILE: the certificate comes from the file or from the authority, so remove one of them",
			func() bool { return c.ACMEDomains == nil || c.TLSCert == "" }, "TLS_ACME_DOMAINS", "TLS_CERT_FILE"),
		envcheck.RequiredIf("TLS_ACME_DIR", "TLS_ACME_DOMAINS"),
		envcheck.RequiredIf("TLS_ACME_DOMAINS", "TLS_ACME_DIR"),
		envcheck.RequiredIf("TLS_ACME_DOMAINS", "TLS_ACME_URL"),
		envcheck.RuleFunc("cannot be true together with TLS_ACME_URL, which names another authority",
			func() bool { return !c.ACMEStaging || c.ACMEURL == "" }, "TLS_ACME_STAGING", "TLS_ACME_URL"),
		envcheck.RuleFunc("must not be below HISTORY_KEEP",
			func() bool { return c.HistoryTrimAt == 0 || c.HistoryTrimAt >= c.HistoryKeep }, "HISTORY_TRIM_AT", "HISTORY_KEEP"),
		envcheck.RuleFunc("takes the place of HISTORY_KEEP and HISTORY_TRIM_AT: remove them",
			func() bool {
				return c.HistoryKeepText == 0 || c.HistoryKeep == defaultKeep && c.HistoryTrimAt == 0
			}, "HISTORY_KEEP_TEXT", "HISTORY_KEEP", "HISTORY_TRIM_AT"),
		envcheck.RuleFunc("must be longer than BROADCAST_DELAY, or viewers see nothing",
			func() bool { return c.HistoryMaxAge == 0 || c.HistoryMaxAge > c.Delay }, "HISTORY_MAX_AGE", "BROADCAST_DELAY"),
		envcheck.RequiredIf("HISTORY_KEY", "HISTORY_DIR"),
		envcheck.RequiredIf("HISTORY_KEY", "LIVES_DIR"),
		envcheck.RuleFunc("must be another directory than HISTORY_DIR and AUTH_DIR, and not in one of them", c.livesApart, "LIVES_DIR", "HISTORY_DIR", "AUTH_DIR"),
		envcheck.RuleFunc("encrypts nothing without HISTORY_DIR, LIVES_DIR or REDIS_URL: set one of them",
			func() bool {
				return c.HistoryKey.IsZero() || c.HistoryDir != "" || c.LivesDir != "" || !c.RedisURL.IsZero()
			}, "HISTORY_KEY", "HISTORY_DIR", "LIVES_DIR", "REDIS_URL"),
		envcheck.RuleFunc("cannot be set together with HISTORY_DIR: the engine keeps the history; to take an older one along, export it with HISTORY_DIR, and import it with REDIS_URL",
			func() bool { return c.RedisURL.IsZero() || c.HistoryDir == "" }, "REDIS_URL", "HISTORY_DIR"),
		envcheck.RuleFunc("cannot be set together with AUTH_DIR, which is of one server alone: remove AUTH_DIR",
			func() bool { return c.RedisURL.IsZero() || c.AuthDir == "" }, "REDIS_URL", "AUTH_DIR"),
		envcheck.RuleFunc("is required together with REDIS_URL in production, and without JWT_SECRET: `server secret` makes one, and all servers need the same",
			func() bool {
				return c.RedisURL.IsZero() || !c.HistoryKey.IsZero() || !c.Production && !c.Secret.IsZero()
			}, "HISTORY_KEY", "REDIS_URL", "NODE_ENV", "JWT_SECRET"),
		envcheck.RuleFunc("must not be the same as JWT_SECRET",
			func() bool { return c.HistoryKey.Reveal() == "" || c.HistoryKey.Reveal() != c.Secret.Reveal() }, "HISTORY_KEY", "JWT_SECRET"),
	}}
}

// Load reads and checks the environment. Its error names every problem, and
// holds no secret.
func Load(env envcheck.Lookup) (Config, error) {
	var c Config
	c.Failures = 10
	if err := c.Spec().Load(env); err != nil {
		return Config{}, fmt.Errorf("the environment is not usable:\n%w", err)
	}
	if slices.Equal(c.Rooms, []string{everyDevice}) {
		c.Rooms = slices.Clone(c.Devices)
	}
	if text := c.HistoryKeepText; text > 0 {
		// Each message weighs at least a byte, so these do not decide.
		c.HistoryKeep = int(text + text/5 + 1)
		c.HistoryTrimAt = c.HistoryKeep
		if c.HistoryMaxBytes == 0 {
			c.HistoryMaxBytes = max(256*text, leastBytes)
		}
	}
	if c.HistoryTrimAt == 0 {
		c.HistoryTrimAt = c.HistoryKeep + c.HistoryKeep/5
	}
	c.EnginePatience = 10 * time.Second
	if c.Delay > 0 {
		c.EngineCheck = min(5*time.Second, c.Delay/4)
	}
	if c.Node == "" {
		c.Node, _ = os.Hostname() // it names the server in logs and lists only
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = connectionsFor(openFiles(), c.roomFiles())
	}
	return c, nil
}

// mostConnections is more than a process can serve.
const mostConnections = 10_000_000

// journalFiles is how many files an open journal takes, and one more while it
// begins another segment.
const journalFiles = 8

// roomFiles returns how many files the rooms take: those of a journal, or a
// connection to the engine. Those of a single conversation are among the others.
func (c *Config) roomFiles() int {
	switch {
	case c.HistoryDir != "":
		return journalFiles * len(c.Rooms)
	case !c.RedisURL.IsZero():
		return len(c.Rooms)
	}
	return 0
}

// connectionsFor returns the default of MAX_CONNECTIONS for a process that may
// open so many files, of which the rooms take some. The others are for the
// history, the state of the authority, listeners, and HTTP connections.
func connectionsFor(files uint64, rooms int) int {
	if files == 0 || files > mostConnections {
		return mostConnections // the system has no such limit, or does not tell
	}
	files -= min(files, uint64(rooms))
	return max(1, int(files-max(files/10, min(64, files/2))))
}

// Addr returns the public address to listen on, as host:port or unix:PATH.
func (c *Config) Addr() string {
	if c.onSocket() {
		return c.Host
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

func (c *Config) onSocket() bool {
	_, ok := socket.Path(c.Host)
	return ok
}

// SocketAccess returns who may connect to the Unix socket in HOST.
func (c *Config) SocketAccess() socket.Access {
	return socket.Access{Mode: c.SocketMode, Group: c.SocketGroup}
}

// Clients returns the resolver of clients' addresses. The peer on a Unix socket
// has no address by which TRUSTED_PROXIES could name it. It is trusted, because
// the socket's mode admits the proxy and no other user's process.
func (c *Config) Clients() *clientip.Resolver {
	clients := clientip.Behind(c.Proxies...)
	if c.onSocket() {
		clients = clients.TrustUnix()
	}
	return clients
}

// EndsTLS reports whether this server ends TLS, and not a proxy.
func (c *Config) EndsTLS() bool { return c.TLSCert != "" || c.ACMEDomains != nil }

// ACMEDirectory returns the URL of the authority's directory.
func (c *Config) ACMEDirectory() string {
	switch {
	case c.ACMEURL != "":
		return c.ACMEURL
	case c.ACMEStaging:
		return certificate.LetsEncryptStaging
	}
	return certificate.LetsEncrypt
}

// OperatorAddr returns the address that the operator's commands call: the first
// Unix socket, or else the first address. It is empty if there is none.
func (c *Config) OperatorAddr() string {
	for _, addr := range c.OperatorAddrs {
		if _, ok := socket.Path(addr); ok {
			return addr
		}
	}
	return strings.Join(c.OperatorAddrs[:min(len(c.OperatorAddrs), 1)], "")
}

// Logger returns a logger that writes to w in the configured format, from the
// configured level on.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Secrets returns every secret, none of which a log, an error or an event may
// hold. A secret that is not set is empty.
func (c *Config) Secrets() (all []string) {
	for _, s := range []envcheck.Secret[string]{c.Secret, c.Previous, c.HistoryKey, c.HistoryPrevious, c.SentryDSN, c.RedisURL} {
		all = append(all, s.Reveal())
	}
	return append(all, engine.Secrets(c.RedisURL.Reveal())...)
}

// Tracker returns the configuration of the error tracker.
func (c *Config) Tracker() tracker.Config {
	environment := "development"
	if c.Production {
		environment = "production"
	}
	return tracker.Config{DSN: c.SentryDSN.Reveal(), Environment: environment, Secrets: c.Secrets()}
}

// Provider returns the provider of JWT_ISSUER, or nil.
func (c *Config) Provider() *jwtauth.Provider {
	if c.Issuer == "" {
		return nil
	}
	return &jwtauth.Provider{Issuer: c.Issuer, JWKS: c.KeySet}
}

// Keys returns the ring of secrets: JWT_SECRET, which signs, and
// JWT_SECRET_PREVIOUS if set, which is only accepted. It is empty without
// JWT_SECRET.
func (c *Config) Keys() []jwtauth.Key {
	if c.Secret.Reveal() == "" {
		return nil
	}
	keys := []jwtauth.Key{{Secret: []byte(c.Secret.Reveal())}}
	if old := c.Previous.Reveal(); old != "" && old != c.Secret.Reveal() {
		keys = append(keys, jwtauth.Key{Secret: []byte(old)})
	}
	return keys
}
