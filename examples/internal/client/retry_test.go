package client_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
)

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		for _, row := range []struct {
			value string
			want  time.Duration
			why   string
		}{
			{"", 0, "none"},
			{"17", 17 * time.Second, "seconds"},
			{" 17 ", 17 * time.Second, "with spaces"},
			{"0", 0, "at once"},
			{"-5", 0, "malformed"},
			{"1.5", 0, "no fraction is allowed"},
			{"soon", 0, "malformed"},
			{"99999999", 5 * time.Minute, "bounded"},
			{"99999999999999999999999", 5 * time.Minute, "beyond all numbers"},
			{in(40 * time.Second), 40 * time.Second, "a date"},
			{in(-time.Hour), 0, "a date that has passed"},
			{in(24 * time.Hour), 5 * time.Minute, "a date that is far"},
			{time.Now().Add(time.Minute).UTC().Format(time.RFC850), time.Minute, "an obsolete form of dates"},
			{time.Now().Add(time.Minute).UTC().Format(time.ANSIC), time.Minute, "and the other"},
		} {
			h := http.Header{}
			h.Set("Retry-After", row.value)
			if got := client.RetryAfter(h, 5*time.Minute); got != row.want {
				t.Errorf("%q (%s): %v, want %v", row.value, row.why, got, row.want)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "Sun, 06 Nov 1994 08:49:37 GMT", "9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if d := client.RetryAfter(http.Header{"Retry-After": {value}}, time.Minute); d < 0 || d > time.Minute {
			t.Errorf("%q: %v", value, d)
		}
	})
}

func TestComeBack(t *testing.T) {
	for _, row := range []struct {
		reason string
		want   time.Duration
		ok     bool
		why    string
	}{
		{"retry=17", 17 * time.Second, true, "seconds"},
		{"retry=0", 0, true, "at once"},
		{"retry=99999999", 5 * time.Minute, true, "bounded"},
		{"retry=99999999999999999999999", 5 * time.Minute, true, "beyond all numbers"},
		{"", 0, false, "no reason"},
		{"server stopping", 0, false, "another reason"},
		{"retry=", 0, false, "no number"},
		{"retry=-1", 0, false, "a sign"},
		{"retry=1.5", 0, false, "a fraction"},
		{"retry= 5", 0, false, "a blank"},
		{"retry=5 ", 0, false, "a blank behind"},
		{"please retry=5", 0, false, "other words before"},
		{"RETRY=5", 0, false, "other letters"},
		{"retry=Sun, 06 Nov 2094 08:49:37 GMT", 0, false, "a date"},
	} {
		if got, ok := client.ComeBack(row.reason, 5*time.Minute); got != row.want || ok != row.ok {
			t.Errorf("%q (%s): %v, %t", row.reason, row.why, got, ok)
		}
	}
}
