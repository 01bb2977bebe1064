package config

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/history/journal"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

// checkTLS says which variables of TLS do not go together.
func (c *Config) checkTLS() error {
	var errs []error
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("TLS_CERT_FILE and TLS_KEY_FILE must be set together"))
	}
	if c.RedirectAddr != "" && c.TLSCert == "" && c.TLSKey == "" {
		errs = append(errs, errors.New("HTTP_REDIRECT_ADDR leads to TLS, which needs TLS_CERT_FILE and TLS_KEY_FILE"))
	}
	return errors.Join(errs...)
}

func parseOnExpiry(s string) (wsauth.OnExpiry, error) {
	if s == "close" {
		return wsauth.OnExpiryClose, nil
	}
	return wsauth.OnExpiryView, nil
}

func parseOverLimit(s string) (wsauth.OverLimit, error) {
	if s == "replace" {
		return wsauth.OverLimitReplace, nil
	}
	return wsauth.OverLimitRefuse, nil
}

func parseLevel(s string) (level slog.Level, err error) {
	return level, level.UnmarshalText([]byte(s))
}

// CheckOrigin accepts an origin that the transport can compare with a browser's.
func CheckOrigin(s string) error {
	if _, err := wsconn.New(wsconn.Config{Origins: wsconn.Origins{Allow: []string{s}}}); err != nil {
		return envcheck.Problem("must be an origin like https://art.example, without a path")
	}
	return nil
}

// listenHost accepts an address of this machine, not a name, which could turn out
// to be another address than the one that was meant.
func listenHost(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "localhost" {
		return envcheck.Problem("must be an IP address, like 127.0.0.1 or 0.0.0.0, or localhost")
	}
	return nil
}

// listenAddr accepts such an address with a port, or nothing. An address without a
// host would be every address, which for the operator's calls must be spelt out.
func listenAddr(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if s != "" && (err != nil || listenHost(host) != nil || portErr != nil || n == 0) {
		return envcheck.Problem("must be an address like 127.0.0.1:3001, or empty for none")
	}
	return nil
}

// historyKey accepts the one spelling of 32 bytes that newSecret makes.
func historyKey(s string) error {
	if _, err := decodeKey(s); err != nil {
		return envcheck.Problem("must be 32 random bytes in base64url without padding, 43 characters, as `server secret` prints them")
	}
	return envcheck.Strong(32)(s)
}

func historyKeyOrNone(s string) error {
	if s == "" {
		return nil
	}
	return historyKey(s)
}

func parseSync(s string) (journal.Sync, error) {
	return map[string]journal.Sync{"always": journal.SyncAlways, "interval": journal.SyncInterval, "never": journal.SyncNever}[s], nil
}

func strongOrNone(s string) error {
	if s == "" {
		return nil
	}
	return envcheck.Strong(32)(s)
}

// leastBytes is room for some of the largest messages.
const leastBytes = 1 << 20

func enoughBytes(s string) error {
	var n int64
	if parsed := envcheck.Bytes(&n, 1<<40); (envcheck.Spec{Vars: []envcheck.Var{{Name: "N", Into: parsed}}}).Load(func(string) (string, bool) { return s, true }) == nil && n < leastBytes {
		return envcheck.Problem("must be at least 1MiB")
	}
	return nil
}

func trackerDSN(s string) error {
	if err := tracker.CheckDSN(s); err != nil {
		return envcheck.Problem(err.Error())
	}
	return nil
}
