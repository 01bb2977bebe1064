package main

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
)

// Visitors that become one client behind a proxy are seen in the log: if its
// header cannot be read, and if it sends none.
func TestPooledVisitors(t *testing.T) {
	s := start(t, trustLoopback)
	const unreadable, refused = "unreadable forwarding header of a trusted proxy, so all clients that it sends so count as one",
		"a trusted proxy itself was refused: it passes on no readable address, so its clients count as one"
	connect(t, s.addr, "X-Forwarded-For", "unknown")
	connect(t, s.addr, "X-Forwarded-For", "192.0.2.1")
	testkit.Eventually(t, "the unreadable header is logged", func() bool { return len(s.logs.Events(unreadable)) > 0 })
	events := s.logs.Events(unreadable)
	if len(events) != 1 || events[0]["addr"] != "127.0.0.1" || events[0]["error"] != "clientip: x-forwarded-for: obfuscated or unknown" {
		t.Errorf("%v", events)
	}
	for range s.cfg.RateConnections + 1 {
		connect(t, s.addr, "X-Forwarded-For", "192.0.2.1")
	}
	if told := s.logs.Events(refused); len(told) > 0 {
		t.Errorf("a visitor over the limit is taken for a proxy: %v", told)
	}
	for range s.cfg.RateConnections + 1 {
		connect(t, s.addr)
	}
	testkit.Eventually(t, "the proxy's refusal is logged", func() bool { return len(s.logs.Events(refused)) > 0 })
	op := s.operator()
	if got := op.metric("relayguard_proxies_refused_total"); got == 0 {
		t.Error("the proxy's refusals are not counted")
	}
}

// The same is seen if the proxy is in a network with a limit of its own, which
// then counts as the client. A visitor in that network is not taken for it.
func TestPooledVisitorsOfANetwork(t *testing.T) {
	s := start(t, func(c *config.Config) {
		trustLoopback(c)
		c.RateNetworks = map[netip.Prefix]int{netip.MustParsePrefix("127.0.0.0/8"): 12, netip.MustParsePrefix("192.0.2.0/24"): 12}
	})
	const refused = "a trusted proxy itself was refused: it passes on no readable address, so its clients count as one"
	for range 13 {
		connect(t, s.addr, "X-Forwarded-For", "192.0.2.1")
	}
	if told := s.logs.Events(refused); len(told) > 0 {
		t.Errorf("a visitor over the limit is taken for a proxy: %v", told)
	}
	for range 13 {
		connect(t, s.addr)
	}
	testkit.Eventually(t, "the proxy's refusal is logged", func() bool { return len(s.logs.Events(refused)) > 0 })
}

// A block of an IPv4 address holds its translated forms.
func TestBlockTranslated(t *testing.T) {
	s := start(t, trustLoopback)
	viewer, other := s.viewer(from("64:ff9b::192.0.2.7")...), s.viewer(from("64:ff9b::192.0.2.8")...)
	testkit.Eventually(t, "the server has both connections", func() bool { return s.srv.Relay.Len() == 2 })
	if out := s.must("block", "192.0.2.7"); !strings.Contains(out, "ended: 1") {
		t.Error(out)
	}
	if _, code := viewer.end(); code != 1008 {
		t.Errorf("ended with %d", code)
	}
	if _, res := connect(t, s.addr, from("64:ff9b::192.0.2.7")...); res.StatusCode != http.StatusForbidden {
		t.Errorf("the translated form of a blocked address gets %s", res.Status)
	}
	other.leave()
}

// The message for TRUSTED_PROXIES says which item is wrong and what to write,
// and does not quote it.
func TestTrustedProxiesMessages(t *testing.T) {
	for _, row := range []struct {
		value string
		want  []string
	}{
		{"loopback, 10.0.0.0/33", []string{"item 2", "1 to 32 bits"}},
		{"secret.example,10.0.0.1:80", []string{"item 1", "not looked up", "item 2", "the port"}},
		{"10.9.0.0/16;172.16.0.0/12", []string{"item 1", "commas"}},
		{"0.0.0.0/0", []string{"item 1", "would trust every address"}},
		{"loopback,none", []string{"item 2", "must be alone"}},
	} {
		_, err := config.Load(environment(map[string]string{"TRUSTED_PROXIES": row.value}))
		if err == nil {
			t.Errorf("%q is accepted", row.value)
			continue
		}
		for _, want := range row.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q in it", row.value, err, want)
			}
		}
		for item := range strings.FieldsFuncSeq(row.value, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
			if item != "none" && item != "loopback" && strings.Contains(err.Error(), item) {
				t.Errorf("%q: %v quotes it", row.value, err)
			}
		}
	}
	cfg, err := config.Load(environment(map[string]string{"TRUSTED_PROXIES": "10.0.0.0/8"}))
	if err != nil || len(cfg.Proxies) != 1 || cfg.Proxies[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("%v, %v", cfg.Proxies, err)
	}
}

// A venue whose visitors share an address has a limit of its own.
func TestNetworkLimits(t *testing.T) {
	cfg, err := config.Load(environment(map[string]string{"RATE_LIMIT_NETWORKS": "203.0.113.0/24=25, 2001:db8:5::/48=none"}))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *config.Config) { trustLoopback(c); c.RateNetworks = cfg.RateNetworks })
	for _, row := range []struct {
		from          string
		ask, admitted int
		why           string
	}{
		{"203.0.113.7", 20, 20, "the eleventh phone of the venue"},
		{"203.0.113.8", 10, 5, "all of the venue is one client"},
		{"2001:db8:5:1::1", 30, 30, "an office without a limit"},
		{"198.51.100.1", 12, 10, "everyone else"},
	} {
		admitted := 0
		for range row.ask {
			if p, _ := connect(t, s.addr, from(row.from)...); p != nil {
				admitted++
			}
		}
		if admitted != row.admitted {
			t.Errorf("%s: %d of %d admitted, want %d", row.why, admitted, row.ask, row.admitted)
		}
	}
}
