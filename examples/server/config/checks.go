package config

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/socket"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/examples/server/web"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/ratelimit/clientip"
	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

var deviceID = regexp.MustCompile(`[A-Za-z0-9_-]{1,64}`)

// deviceName returns an error unless s is a name that a device can have. The
// tokens of the operator's commands hold the name operator: if a device had it,
// to revoke the device would lock the operator out.
func deviceName(s string) error {
	if s == "operator" {
		return envcheck.CheckReason("must not be operator, which is the name of the operator's commands")
	}
	return envcheck.Match(deviceID, "made of letters, digits, hyphens and underscores, 64 at most")(s)
}

// everyDevice in ROOMS is a room for every device.
const everyDevice = "*"

const mostRooms = 1000

var roomPattern = regexp.MustCompile(`[A-Za-z0-9][A-Za-z0-9_-]{0,63}`)

// roomName returns an error unless s is a name that a room can have, which is
// one that a device can have, too.
func roomName(s string) error {
	if s == everyDevice {
		return nil
	}
	return envcheck.Match(roomPattern, "made of letters, digits, hyphens and underscores, 64 at most, and begin with a letter or a digit")(s)
}

// usableRooms reports whether ROOMS names rooms, or is that of every device.
func (c *Config) usableRooms() bool {
	names := c.Rooms
	if slices.Equal(names, []string{everyDevice}) {
		names = c.Devices
	}
	return len(names) <= mostRooms && !slices.ContainsFunc(names, func(name string) bool { return !roomPattern.MatchString(name[:1]) })
}

// RoomWarnings returns what is probably not wanted about rooms and devices.
func (c *Config) RoomWarnings() (warnings []string) {
	if c.Rooms == nil {
		if len(c.Devices) > 1 {
			warnings = append(warnings, "several devices share one conversation: ROOMS=* gives each a room of its own")
		}
		return warnings
	}
	for _, device := range c.Devices {
		if !slices.Contains(c.Rooms, device) {
			warnings = append(warnings, "the device "+device+" has no room of its name: it can publish only in rooms that a token of the role speaker names")
		}
	}
	return warnings
}

// proxies reads the trusted proxies. Its error names a wrong item by its place,
// since an error of the environment quotes no value.
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

// networks reads networks with a limit each, as ratelimit.Config has them. Its
// error names a wrong item by its place, since an error of the environment
// quotes no value.
func networks(s string) (map[netip.Prefix]int, error) {
	limits := make(map[netip.Prefix]int)
	var texts []string
	for i, item := range strings.Split(s, ",") {
		before, text, _ := strings.Cut(item, "=")
		prefixes, err := clientip.ParsePrefixes(before)
		limit := -1
		if text = strings.TrimSpace(text); text != "none" {
			n, _ := strconv.ParseUint(text, 10, 31)
			limit = int(n)
		}
		if err != nil || len(prefixes) != 1 {
			texts = append(texts, fmt.Sprintf("item %d has no network like 203.0.113.0/24 before the =", i+1))
			continue
		}
		network := ratelimit.FoldPrefix(prefixes[0])
		switch {
		case limit == 0 || limit > maxRate:
			texts = append(texts, fmt.Sprintf("item %d has no limit from 1 to %d after the =, and not none", i+1, maxRate))
		case limits[network] != 0:
			texts = append(texts, fmt.Sprintf("item %d has a network that an earlier item has", i+1))
		}
		limits[network] = limit
	}
	if texts != nil {
		return nil, envcheck.CheckReason("must be a list of networks with limits: " + strings.Join(texts, "; "))
	}
	return limits, nil
}

// maxRate is the highest RATE_LIMIT_CONNECTIONS.
const maxRate = 1_000_000

// CheckOrigin returns an error unless s is an origin that the transport can
// compare with a browser's Origin header.
func CheckOrigin(s string) error {
	if err := (wsauth.Origins{Allow: []string{s}}).Validate(); err != nil {
		if strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) {
			return envcheck.CheckReason("must be an origin in ASCII, as browsers send it: a host such as münchen.example is written xn--mnchen-3ya.example")
		}
		return envcheck.CheckReason("must be an origin like https://art.example, without a path")
	}
	return nil
}

// listenHost accepts an IP address or localhost. It refuses other names, since
// a name can resolve to another address than the operator meant.
func listenHost(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "localhost" {
		return envcheck.CheckReason("must be an IP address, like 127.0.0.1 or 0.0.0.0, or localhost")
	}
	return nil
}

// listenAddr accepts a host that listenHost accepts, with a port. It refuses an
// empty host, which would be every address: an operator who wants that has to
// write 0.0.0.0.
func listenAddr(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || listenHost(host) != nil || portErr != nil || n == 0 {
		return envcheck.CheckReason("must be an address like 127.0.0.1:3001, or empty for none")
	}
	return nil
}

// operatorAddr accepts what listenAddr accepts, and the path of a Unix socket.
func operatorAddr(s string) error {
	if path, ok := socket.Path(s); ok {
		return socketPath(path, "unix:/run/relay/operator.sock")
	}
	return listenAddr(s)
}

// publicHost accepts what listenHost accepts, and the path of a Unix socket.
func publicHost(s string) error {
	if path, ok := socket.Path(s); ok {
		return socketPath(path, "unix:/run/relay-proxy/relay.sock")
	}
	return listenHost(s)
}

func socketPath(path, like string) error {
	if !filepath.IsAbs(path) || len(path) > socket.MaxPath || filepath.Clean(path) != path {
		return envcheck.CheckReason(fmt.Sprintf("must name a Unix socket by its whole path of at most %d bytes, like %s", socket.MaxPath, like))
	}
	return nil
}

// socketMode reads the mode of a Unix socket. It must let the owner connect,
// and no user who is not in the group.
func socketMode(s string) (fs.FileMode, error) {
	mode, err := strconv.ParseUint(s, 8, 9)
	switch {
	case err != nil || mode&0o600 != 0o600:
		return 0, envcheck.CheckReason("must be an octal mode that lets the owner read and write, like 0660")
	case mode&0o007 != 0:
		return 0, envcheck.CheckReason("must not admit all users of the machine, who could then choose the addresses of clients: use 0660, and SOCKET_GROUP for the proxy's group")
	}
	return fs.FileMode(mode), nil
}

// groupName matches the name or the number of a group.
var groupName = regexp.MustCompile(`[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}`)

// strongSecret accepts what [envcheck.Strong] does. Its reason names this
// program's command that makes a secret, not the library's.
func strongSecret(s string) error {
	err := envcheck.Strong(32)(s)
	if err == nil {
		return nil
	}
	problem, _, _ := strings.Cut(err.Error(), "; ")
	return envcheck.CheckReason(problem + "; `server secret` makes one")
}

// publicKeys reads public keys in PEM, one after the other.
func publicKeys(text string) (keys []jwtauth.Key, err error) {
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, envcheck.CheckReason("must be PEM: blocks from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, with line breaks")
		}
		if strings.Contains(block.Type, "PRIVATE") {
			return nil, envcheck.CheckReason("is a private key: keep it on the machine that signs, and give the server the public key")
		}
		keys = append(keys, jwtauth.Key{PEM: pem.EncodeToMemory(block)})
	}
	if _, err := jwtauth.New(jwtauth.Config{Keys: keys, AnySubject: true}); err != nil {
		return nil, envcheck.CheckReason("must be up to 7 different public keys for EdDSA (Ed25519), ES256 (P-256) or ES384 (P-384)")
	}
	return keys, nil
}

func usableProvider(p *jwtauth.Provider) bool {
	_, err := jwtauth.New(jwtauth.Config{Providers: []jwtauth.Provider{*p}, AnySubject: true})
	return err == nil
}

// historyKey accepts 32 bytes only in the encoding that `server secret` prints.
func historyKey(s string) error {
	if _, err := decodeKey(s); err != nil {
		return envcheck.CheckReason("must be 32 random bytes in base64url without padding, 43 characters, as `server secret` makes them")
	}
	return strongSecret(s)
}

// leastBytes is the least HISTORY_MAX_BYTES: enough for some of the largest
// messages.
const leastBytes = 1 << 20

// defaultKeep is the default of HISTORY_KEEP.
const defaultKeep = 1000

// The bounds of HISTORY_KEEP_TEXT.
const (
	leastText = 1 << 10
	mostText  = 64 << 20
)

// prefix matches what keys in the engine can begin with. Braces would decide
// about the node of a cluster that has a key.
var prefix = regexp.MustCompile(`[A-Za-z0-9._-]{1,64}`)

// nodeName matches the name of a server.
var nodeName = prefix

// page reads a directory with files that the page can use.
func page(dir string) (*web.Page, error) {
	p, err := web.New(dir)
	if err != nil {
		return nil, envcheck.CheckReason("must be a directory with usable files: " + strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return p, nil
}

func engineURL(s string) error {
	if _, err := engine.Parse(s); err != nil {
		return envcheck.CheckReason(err.Error())
	}
	return nil
}

func trackerDSN(s string) error {
	if err := tracker.CheckDSN(s); err != nil {
		return envcheck.CheckReason(err.Error())
	}
	return nil
}

var dnsName = regexp.MustCompile(`([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])`)

// domainName accepts a name for which an authority issues a certificate after
// it has asked the server: no address, and no wildcard.
func domainName(s string) error {
	if len(s) > 253 {
		return envcheck.CheckReason("must be a domain of at most 253 characters")
	}
	return envcheck.Match(dnsName, "a domain in lower case, like art.example, without a port and without *")(s)
}

func httpsURL(s string) error {
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return envcheck.CheckReason("must be an https URL, like https://ca.example/acme/directory")
	}
	return nil
}
