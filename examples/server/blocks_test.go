package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
)

func from(client string) []string { return []string{"X-Forwarded-For", client} }

// must runs a verb, which must succeed, and returns its output.
func (s *testSite) must(args ...string) string {
	s.t.Helper()
	code, output := s.verb(args...)
	if code != exitOK {
		s.t.Fatalf("server %s: exit code %d: %s", strings.Join(args, " "), code, output)
	}
	return output
}

func (s *testSite) listBlocks() (list []blocklist.Block) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must("blocks", "-json")), &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// A block ends the network's open connections, publishers included, and refuses
// new ones. Other networks are not affected.
func TestBlockEndsConnections(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); crowded(c) })
	viewer, publisher := s.viewer(from("192.0.2.7")...), s.viewer(from("192.0.2.8")...)
	publisher.authenticate(s.token(testDevice, time.Hour))
	neighbour := s.viewer(from("2001:db8:0:1::5")...)
	other := s.viewer(from("198.51.100.1")...)
	testkit.Eventually(t, "the server has all connections", func() bool { return s.srv.Relay.Len() == 4 })

	if out := s.must("block", "192.0.2.0/24"); !strings.Contains(out, "ended: 2") || !strings.Contains(out, "AUTH_DIR") {
		t.Error(out)
	}
	for _, p := range []*peer{viewer, publisher} {
		if _, code := p.end(); code != 1008 {
			t.Errorf("ended with %d", code)
		}
	}
	if _, res := connect(t, s.addr, from("192.0.2.9")...); res.StatusCode != http.StatusForbidden {
		t.Errorf("a blocked address gets %s", res.Status)
	}
	// A block of an IPv6 address blocks its subscriber's network.
	if out := s.must("block", "2001:db8:0:1::99", "-for", "90m", "-json"); !strings.Contains(out, `"prefix": "2001:db8:0:1::/64"`) || !strings.Contains(out, `"connections": 1`) {
		t.Error(out)
	}
	if _, code := neighbour.end(); code != 1008 {
		t.Errorf("ended with %d", code)
	}
	s.publisher().send(`{"text":"a"}`)
	other.texts(1) // other networks stay connected

	// A network in the form of NAT64 is an IPv4 network, whose visitors may
	// come without a translator.
	if out := s.must("block", "64:ff9b::198.51.100.0/120"); !strings.Contains(out, "198.51.100.0/24") {
		t.Error(out)
	}
	if _, code := other.end(); code != 1008 {
		t.Errorf("ended with %d", code)
	}
	s.must("unblock", "64:ff9b::198.51.100.0/120")

	list := s.listBlocks()
	if len(list) != 2 || list[0].Prefix.String() != "192.0.2.0/24" || list[0].Until == nil || list[0].Lasting {
		t.Errorf("%+v", list)
	}
	if out := s.must("blocks"); !strings.Contains(out, "2001:db8:0:1::/64") || !strings.Contains(out, "forgotten") {
		t.Error(out)
	}
	if code, out := s.verb("unblock", "192.0.2.9"); code != exitFailed || !strings.Contains(out, "192.0.2.0/24 is") {
		t.Errorf("%d: %s", code, out)
	}
	s.must("unblock", "2001:db8:0:1::99")
	s.viewer(from("2001:db8:0:1::5")...)
	s.must("unblock", "192.0.2.0/24")
	s.viewer(from("192.0.2.9")...)
	if code, out := s.verb("unblock", "192.0.2.0/24"); code != exitFailed || !strings.Contains(out, "404") {
		t.Errorf("%d: %s", code, out)
	}
}

// A connection that was admitted just before its address was blocked is ended
// too.
func TestBlockLeavesNoGap(t *testing.T) {
	s := start(t, nil)
	if err := s.srv.Watch.Limiter().Block(netip.MustParsePrefix("127.0.0.0/8"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	p, _ := connectTo(t, "ws://"+serveAt(t, s.srv.Relay)) // past the limiter
	if _, code := p.end(); code != 1008 {
		t.Errorf("ended with %d", code)
	}
	testkit.Eventually(t, "forgotten", func() bool { return s.srv.Relay.Len() == 0 })
}

// Unblocking also ends a penalty, which the list of blocks shows.
func TestUnblockForgives(t *testing.T) {
	s := start(t, func(c *config.Config) { trustLoopback(c); c.Failures = 2 })
	for range 2 {
		p := s.viewer(from("192.0.2.7")...)
		p.send(`{"token":"none"}`)
		p.end()
	}
	if !s.barred("192.0.2.7") || s.barred("192.0.2.8") {
		t.Error("after two failures, the address or another one")
	}
	if out := s.must("blocks"); !strings.Contains(out, "192.0.2.7/32") || !strings.Contains(out, "tokens only") {
		t.Error(out)
	}
	s.must("unblock", "192.0.2.7")
	if s.barred("192.0.2.7") {
		t.Error("the penalty is not forgiven")
	}
	if list := s.listBlocks(); len(list) > 0 {
		t.Errorf("listed: %v", list)
	}
}

func TestBlockIsRefused(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"0.0.0.0/0"}, exitFailed, "-force"},
		{[]string{"::/0"}, exitFailed, "-force"},
		{[]string{"::ffff:0.0.0.0/96"}, exitFailed, "-force"},
		{[]string{"10.1.2.3"}, exitFailed, "TRUSTED_PROXIES"},
		{[]string{"64:ff9b::10.1.2.0/120"}, exitFailed, "TRUSTED_PROXIES"}, // in the form of NAT64
		{[]string{"10.1.2.3", "-force"}, exitFailed, "TRUSTED_PROXIES"},
		{[]string{"8.0.0.0/5"}, exitFailed, "TRUSTED_PROXIES"},
		{[]string{"192.0.2.7/33"}, exitUsage, "prefix"},
		{[]string{"example.org"}, exitUsage, "prefix"},
		{nil, exitUsage, "name one"},
		{[]string{"192.0.2.7", "192.0.2.8"}, exitUsage, "name one"},
		{[]string{"192.0.2.7", "-for", "0s"}, exitUsage, "-for"},
		{[]string{"192.0.2.7", "-for", "-1h"}, exitUsage, "-for"},
		{[]string{"192.0.2.7", "-for", "2h", "-forever"}, exitUsage, "exclude"},
	} {
		code, out := s.verb(append([]string{"block"}, row.args...)...)
		if code != row.code || !strings.Contains(out, row.want) {
			t.Errorf("%v: exit code %d, %s", row.args, code, out)
		}
	}
	op := s.operator()
	for _, query := range []string{
		"", "prefix=x", "prefix=192.0.2.7&for=1h&forever=true", "prefix=192.0.2.7&until=2020-01-01T00:00:00Z", "prefix=192.0.2.7&until=later",
		"prefix=192.0.2.7&for=soon", "prefix=192.0.2.7&forever=perhaps", "prefix=192.0.2.7&force=perhaps", "prefix=192.0.2.7&for=-1s",
	} {
		if res, body := op.call("POST", "/blocks?"+query); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s %s", query, res.Status, body)
		}
	}
	if list := s.listBlocks(); len(list) > 0 {
		t.Errorf("something is blocked: %v", list)
	}
	if out := s.must("block", "::/0", "-force", "-forever"); !strings.Contains(out, "forever") {
		t.Error(out)
	}
	if res, _ := op.call("POST", "/blocks?prefix=192.0.2.7&until="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

// Blocks with an end outlast a restart if there is an AUTH_DIR.
func TestBlocksAreKept(t *testing.T) {
	dir := t.TempDir()
	s := start(t, withAuth(dir))
	if out := s.must("block", "192.0.2.7"); strings.Contains(out, "restart") {
		t.Error(out)
	}
	if out := s.must("block", "192.0.2.8", "-forever"); !strings.Contains(out, "restart") {
		t.Error(out)
	}
	s.must("block", "192.0.2.9")
	s.must("unblock", "192.0.2.9")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, func(c *config.Config) { withAuth(dir)(c); trustLoopback(c) })
	if list := s.listBlocks(); len(list) != 1 || list[0].Prefix.String() != "192.0.2.7/32" || !list[0].Lasting {
		t.Errorf("%+v", list)
	}
	if _, res := connect(t, s.addr, from("192.0.2.7")...); res.StatusCode != http.StatusForbidden {
		t.Errorf("after a restart: %s", res.Status)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "blocks.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	withAuth(dir)(&cfg)
	if _, err := site.New(cfg, site.Options{Log: cfg.Logger(newLog())}); err == nil || !strings.Contains(err.Error(), "blocks.json") {
		t.Errorf("a damaged file: %v", err)
	}
}
