package operate_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
)

// duration returns how long a profile in the form of pprof's profile.proto
// covers: its field 10, in nanoseconds.
func duration(t *testing.T, profile []byte) time.Duration {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(profile))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for len(text) > 0 {
		key, n := binary.Uvarint(text)
		value, m := binary.Uvarint(text[n:])
		text = text[n+m:]
		switch {
		case key&7 == 2:
			text = text[value:]
		case key>>3 == 10:
			return time.Duration(value)
		}
	}
	t.Fatal("the profile says no duration")
	return 0
}

// The server's limits for reading and writing are no limit for a profile, whose
// own limit is ten minutes.
func TestProfileTakesItsTime(t *testing.T) {
	mux := http.NewServeMux()
	operate.HandleProfiles(mux)
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 900*time.Millisecond, 900*time.Millisecond // less than the profile takes
	srv.Start()
	defer srv.Close()
	get := func(path string) (int, []byte) {
		t.Helper()
		res, err := srv.Client().Get(srv.URL + "/debug/pprof/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
	if status, body := get("profile?seconds=1"); status != 200 || duration(t, body) < time.Second {
		t.Errorf("a second is %d and covers %v", status, duration(t, body))
	}
	for _, path := range []string{"profile?seconds=601", "trace?seconds=601", "heap?seconds=601", "profile?seconds=-1", "profile?seconds=x"} {
		if status, body := get(path); status != 400 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
