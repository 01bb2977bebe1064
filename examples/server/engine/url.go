package engine

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// The reasons for which an address is refused. None quotes the address, which
// can hold a password.
var (
	errForm       = errors.New("must be like redis://USER:PASSWORD@HOST:PORT, or rediss:// for TLS; a character of the password that is no letter or digit is written as %XX")
	errHost       = errors.New("must name hosts like engine-1.example:6379, also after addr=")
	errDatabase   = errors.New("must have nothing after the host but the number of a database, as in redis://HOST:PORT/1")
	errParameters = errors.New("must have no parameters but addr, master_set, sentinel_username and sentinel_password")
	errSentinel   = errors.New("must have master_set with sentinel_username and sentinel_password")
)

// The default ports of an engine and of a Sentinel.
const (
	enginePort   = "6379"
	sentinelPort = "26379"
)

// Parse reads the address of an engine, in the form that rueidis.ParseURL
// reads, with fewer parameters:
//
//	redis://USER:PASSWORD@HOST:PORT/DATABASE  one engine, or any node of a cluster
//	redis://HOST:PORT?addr=HOST2:PORT2        several nodes of a cluster
//	redis://HOST:PORT?addr=…&master_set=NAME  Sentinels, and the name of the master
//
// Addr may be repeated. With rediss, connections use TLS. The certificate must
// be valid for the host in the address. If there are several hosts, each needs
// a certificate for its own. USER and PASSWORD are those of the engine. Those
// of Sentinels are sentinel_username and sentinel_password. The names valkey
// and valkeys mean the same as redis and rediss.
func Parse(text string) (rueidis.ClientOption, error) {
	var o rueidis.ClientOption
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return o, errForm
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errParameters
	}
	for name, values := range query {
		known := slices.Contains([]string{"addr", "master_set", "sentinel_username", "sentinel_password"}, name)
		if !known || name != "addr" && len(values) > 1 || slices.Contains(values, "") {
			return o, errParameters
		}
	}
	port := enginePort
	if o.Sentinel.MasterSet = query.Get("master_set"); o.Sentinel.MasterSet != "" {
		port = sentinelPort
		o.Sentinel.Username, o.Sentinel.Password = query.Get("sentinel_username"), query.Get("sentinel_password")
	} else if query.Has("sentinel_username") || query.Has("sentinel_password") {
		return o, errSentinel
	}
	for _, host := range append([]string{u.Host}, query["addr"]...) {
		addr, ok := address(host, port)
		if !ok {
			return o, errHost
		}
		o.InitAddress = append(o.InitAddress, addr)
	}
	switch u.Scheme {
	case "redis", "valkey":
	case "rediss", "valkeys":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if len(o.InitAddress) == 1 && o.Sentinel.MasterSet == "" {
			// A node of a cluster may call the others by their IP addresses.
			o.TLSConfig.ServerName = u.Hostname()
		}
		o.Sentinel.TLSConfig = o.TLSConfig
	default:
		return o, errForm
	}
	if u.User != nil {
		o.Username = u.User.Username()
		o.Password, _ = u.User.Password()
	}
	if u.Path != "" {
		if o.SelectDB, err = strconv.Atoi(strings.TrimPrefix(u.Path, "/")); err != nil || o.SelectDB < 0 {
			return o, errDatabase
		}
	}
	return o, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// address returns a host, with or without a port, as HOST:PORT.
func address(text, port string) (string, bool) {
	host := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	}
	n, err := strconv.ParseUint(port, 10, 16)
	_, notIP := netip.ParseAddr(host)
	if err != nil || n == 0 || notIP != nil && !hostName.MatchString(host) {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

// Secrets returns the passwords in an address.
func Secrets(text string) (all []string) {
	o, err := Parse(text)
	if err != nil {
		return nil
	}
	for _, secret := range []string{o.Password, o.Sentinel.Password} {
		if secret != "" {
			all = append(all, secret)
		}
	}
	return all
}
