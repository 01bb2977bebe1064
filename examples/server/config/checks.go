package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/ratelimit/clientip"
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

// proxies reads the trusted proxies. Its error says which item is wrong by its
// place, since an error of the environment quotes no value.
func proxies(s string) ([]netip.Prefix, error) {
	prefixes, err := clientip.ParsePrefixes(s)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, e := range joined.Unwrap() {
			if p, ok := errors.AsType[*clientip.PrefixError](e); ok {
				text := fmt.Sprintf("item %d %s", p.Index+1, p.Reason)
				if p.Hint != "" {
					text += " (" + p.Hint + ")"
				}
				texts = append(texts, text)
			}
		}
		return nil, envcheck.CheckReason("must be a list of prefixes: " + strings.Join(texts, "; "))
	}
	return prefixes, err
}

// CheckOrigin accepts an origin that the transport can compare with a
// browser's.
func CheckOrigin(s string) error {
	if _, err := wsconn.New(wsconn.Config{Origins: wsconn.Origins{Allow: []string{s}}}); err != nil {
		return envcheck.CheckReason("must be an origin like https://art.example, without a path")
	}
	return nil
}

// listenHost accepts an address of this machine, not a name, which could turn
// out to be another address than the one that was meant.
func listenHost(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "localhost" {
		return envcheck.CheckReason("must be an IP address, like 127.0.0.1 or 0.0.0.0, or localhost")
	}
	return nil
}

// listenAddr accepts such an address with a port. An address without a host
// would be every address, which for the operator's calls must be written out.
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

func trackerDSN(s string) error {
	if err := tracker.CheckDSN(s); err != nil {
		return envcheck.CheckReason(err.Error())
	}
	return nil
}
