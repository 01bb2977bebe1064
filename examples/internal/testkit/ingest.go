package testkit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Ingest is an error tracker that keeps the envelopes that it receives,
// unchanged.
type Ingest struct {
	DSN string

	mu        sync.Mutex
	envelopes []string
	hold      chan struct{} // if set, the answers wait until it is closed
	asked     int
}

// DSNKey is the key in an ingest's DSN.
const DSNKey = "0123456789abcdef0123456789abcdef"

// NewIngest starts an Ingest. If hold is not nil, the answers wait until it is
// closed.
func NewIngest(t *testing.T, hold chan struct{}) *Ingest {
	in := &Ingest{hold: hold}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.mu.Lock()
		in.asked++
		in.mu.Unlock()
		if hold != nil {
			<-hold
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/api/42/envelope/" || !strings.Contains(r.Header.Get("X-Sentry-Auth"), DSNKey) {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		in.envelopes = append(in.envelopes, string(body))
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(srv.Close)
	in.DSN = strings.Replace(srv.URL, "http://", "http://"+DSNKey+"@", 1) + "/42"
	return in
}

// Counts returns the number of requests that arrived, and the number of
// envelopes that are kept.
func (in *Ingest) Counts() (asked, kept int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.asked, len(in.envelopes)
}

// Await waits until n envelopes are kept. A tracker that is closed waits only a
// moment for its ingest, which a slow machine can miss.
func (in *Ingest) Await(t *testing.T, n int) {
	t.Helper()
	Eventually(t, "the ingest has the events", func() bool { _, kept := in.Counts(); return kept >= n })
}

// Events returns the payloads of all envelopes, parsed and as texts. It fails
// the test if an envelope holds anything but one event. It leaves out the
// envelope's header, which contains the DSN, because an ingest may know its own
// DSN.
func (in *Ingest) Events(t *testing.T) (events []map[string]any, texts []string) {
	t.Helper()
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, envelope := range in.envelopes {
		lines := bufio.NewScanner(strings.NewReader(envelope))
		lines.Buffer(nil, 1<<20)
		var all []string
		for lines.Scan() {
			all = append(all, lines.Text())
		}
		var item struct{ Type string }
		var event map[string]any
		if len(all) != 3 || json.Unmarshal([]byte(all[1]), &item) != nil || item.Type != "event" || json.Unmarshal([]byte(all[2]), &event) != nil {
			t.Fatalf("not an envelope of one event:\n%s", envelope)
		}
		events, texts = append(events, event), append(texts, all[2])
	}
	return events, texts
}
