package watch_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/examples/server/watch"
	"github.com/relayguard/relayguard/ratelimit"
	"github.com/relayguard/relayguard/wsauth"
)

// Strangers fill no log: of each kind of refusal, ten lines a client and minute
// are written, the rest is counted beside that client, and other events are
// never thinned.
func TestRefusalsAreThinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := new(testkit.Log)
		w, err := watch.New(watch.Config{
			Log: slog.New(slog.NewJSONHandler(logs, nil)), Trail: trail.New(), Limits: ratelimit.Config{},
		})
		if err != nil {
			t.Fatal(err)
		}
		event := func(kind wsauth.EventKind, addr string) {
			w.Event(wsauth.Event{Time: time.Now(), Kind: kind, Reason: wsauth.ReasonSignature, Peer: wsauth.Peer{Addr: netip.MustParseAddr(addr)}})
		}
		lines := func(outcome, addr string) (n int) {
			for _, e := range logs.Events("auth") {
				if e["outcome"] == outcome && e["addr"] == addr {
					n++
				}
			}
			return n
		}
		for range 1000 {
			event(wsauth.EventRefused, "192.0.2.1")
			event(wsauth.EventOriginRefused, "192.0.2.1")
			event(wsauth.EventPairRefused, "2001:db8::1")
			w.Called(watch.Call{Status: 401, Addr: "127.0.0.1"})
		}
		for range 30 {
			event(wsauth.EventAuthenticated, "192.0.2.1")
		}
		event(wsauth.EventRefused, "192.0.2.2")
		for _, row := range []struct {
			outcome, addr string
			want          int
		}{
			{"refused", "192.0.2.1", 10}, {"origin_refused", "192.0.2.1", 10}, {"pair_refused", "2001:db8::1", 10},
			{"authenticated", "192.0.2.1", 30}, {"refused", "192.0.2.2", 1},
		} {
			if got := lines(row.outcome, row.addr); got != row.want {
				t.Errorf("%s of %s: %d lines, want %d", row.outcome, row.addr, got, row.want)
			}
		}
		if got := len(logs.Events("operator call")); got != 10 {
			t.Errorf("%d refused calls are logged, want 10", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		counted := map[string]float64{}
		for _, e := range logs.Events("lines were left out") {
			counted[fmt.Sprint(e["of"], " ", e["client"])] = e["suppressed"].(float64)
		}
		want := map[string]float64{"refused 192.0.2.1/32": 990, "origin_refused 192.0.2.1/32": 990, "pair_refused 2001:db8::/64": 990, "operator call 127.0.0.1/32": 990}
		if fmt.Sprint(counted) != fmt.Sprint(want) {
			t.Errorf("left out: %v, want %v", counted, want)
		}
		event(wsauth.EventRefused, "192.0.2.1")
		if got := lines("refused", "192.0.2.1"); got != 11 {
			t.Errorf("in the next minute: %d lines, want 11", got)
		}

		// More clients than are told apart share one count.
		before := len(logs.Events("auth"))
		for i := range 5000 {
			event(wsauth.EventRefused, fmt.Sprintf("198.51.%d.%d", i/250, i%250))
		}
		if got := len(logs.Events("auth")) - before; got > 300 {
			t.Errorf("%d lines of 5,000 clients", got)
		}
		w.Close()
		if text := logs.String(); !strings.Contains(text, `"client":"others"`) {
			t.Error("the rest is not counted when the server stops")
		}
	})
}
