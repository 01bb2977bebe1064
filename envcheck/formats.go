package envcheck

import (
	"encoding"
	"encoding/base64"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// URL accepts an absolute URL with a host, and with one of the schemes if any
// are given, such as "https". It refuses a user and a password in the URL
// unless the variable is a secret: use SecretOf for the URL of a database.
func URL(into **url.URL, schemes ...string) Setter {
	kind := func() string {
		if len(schemes) == 0 {
			return "a URL with a scheme and a host"
		}
		return "a URL that begins with " + join(schemes, "or", func(scheme string) string { return scheme + "://" }) + " and has a host"
	}
	return setter(into, kind, func(value string, secret bool) (*url.URL, error) {
		u, err := url.Parse(value)
		if err != nil || u.Scheme == "" || u.Hostname() == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' }) {
			return nil, errUnexpected
		}
		known := len(schemes) == 0
		for _, scheme := range schemes {
			known = known || u.Scheme == strings.ToLower(scheme)
		}
		if !known {
			return nil, errUnexpected
		}
		if u.User != nil && !secret {
			return nil, CheckReason("must not have a user or a password in it, since it is not treated as a secret")
		}
		return u, nil
	})
}

// HostPort accepts HOST:PORT, such as db.example:5432, 192.0.2.1:80 or
// [2001:db8::1]:80, with a port from 1 to 65535. It refuses an empty host. To
// listen on every address, use 0.0.0.0 or [::].
func HostPort[T ~string](into *T) Setter {
	return expect(into, func() string { return "an address like host.example:8080, with a port from 1 to 65535" }, func(value string) (T, bool) {
		host, port, err := net.SplitHostPort(value)
		n, portErr := strconv.ParseUint(port, 10, 16)
		return T(value), err == nil && portErr == nil && n > 0 && isHost(host)
	})
}

// isHost reports whether host is an IP address or has the characters of a name.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if strings.Trim(host, "0123456789.") == "" {
		return false // an address that is too long or too short
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		}) {
			return false
		}
	}
	return len(host) <= 253
}

// File accepts the path of a regular file that the process can read. It does
// not keep the file open, and a Default need not exist before Load. For a
// variable whose value is the content of a file, use [Var] with AllowFile.
func File[T ~string](into *T) Setter {
	s := setter(into, func() string { return "the path of a file that the process can read" }, func(value string, _ bool) (T, error) {
		f, reason := openFile(value)
		if reason != "" {
			return "", reason
		}
		f.Close()
		return T(value), nil
	})
	s.local = true
	return s
}

// Bytes64 accepts from low to high bytes in base64, in the standard or the
// URL-safe alphabet (RFC 4648), with or without padding. Spaces and line ends
// are refused, and so are bits behind the last byte that are not zero: a value
// has one spelling in each alphabet. If high is [math.MaxInt], there is no
// upper bound.
func Bytes64[T ~[]byte](into *T, low, high int) Setter {
	kind := func() string {
		switch {
		case low == high:
			return fmt.Sprintf("%d bytes in base64", low)
		case high == math.MaxInt:
			return fmt.Sprintf("%d bytes or more in base64", low)
		}
		return fmt.Sprintf("%d to %d bytes in base64", low, high)
	}
	s := expect(into, kind, func(value string) (T, bool) {
		b, ok := fromBase64(value)
		return T(b), ok && len(b) >= low && len(b) <= high
	})
	s.parts = func(value string) []string { // other forms show the bytes, not their base64
		b, _ := fromBase64(value)
		return []string{string(b)}
	}
	if low > high || high < 0 {
		s.mistake = "its bounds admit no value"
	}
	return s
}

// fromBase64 returns the bytes of value, as Bytes64 reads it.
func fromBase64(value string) ([]byte, bool) {
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(value, "-_") {
		encoding = base64.RawURLEncoding
	}
	text := strings.TrimRight(value, "=")
	if padding := len(value) - len(text); padding > 0 && (len(value)%4 != 0 || padding > 2) || strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	b, err := encoding.Strict().DecodeString(text)
	return b, err == nil
}

// TextUnmarshaler accepts what the method UnmarshalText of *T accepts, such as
// a [netip.Prefix] or a slog.Level. The kind describes the values in errors and
// documents, after the words "must be", such as "a prefix like 10.0.0.0/8". If
// UnmarshalText returns a [CheckReason], errors show its text; any other error
// is not shown, since it may quote the value.
func TextUnmarshaler[T any, P interface {
	*T
	encoding.TextUnmarshaler
}](into *T, kind string) Setter {
	return Func(into, kind, func(value string) (v T, err error) {
		err = P(&v).UnmarshalText([]byte(value))
		return v, err
	})
}
