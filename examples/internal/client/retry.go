package client

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfter returns how long the header Retry-After asks to wait, in seconds
// or until a date (RFC 9110, section 10.2.3), and at most most. It returns 0 if
// there is no such header, if it is malformed, and for a date that has passed.
func RetryAfter(h http.Header, most time.Duration) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(most/time.Second) {
			return most // more than an int64 holds is long, too
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(time.Until(at), 0), most)
}

// ComeBack returns how long the reason of a close frame asks to wait before the
// next connection: "retry=" and seconds, at most most. ok is false for any
// other reason.
func ComeBack(reason string, most time.Duration) (wait time.Duration, ok bool) {
	value, ok := strings.CutPrefix(reason, "retry=")
	if !ok || value == "" || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}
	return RetryAfter(http.Header{"Retry-After": {value}}, most), true
}
