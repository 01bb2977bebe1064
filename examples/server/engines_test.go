package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/internal/redistest"
)

// works requires that two servers with this engine share a history and the
// permissions.
func works(t *testing.T, url string, more ...string) {
	t.Helper()
	env := append([]string{"REDIS_URL=" + url, "REDIS_REPLICAS=0"}, more...)
	a, b := readyNode(t, "", env...), readyNode(t, "", env...)
	viewer, device := b.viewer(), a.publisher()
	device.publish("a", "b")
	viewer.texts(2)
	a.verb(0, "erase", "1")
	viewer.texts(1)
	text, _ := a.verb(0, "token", "-pair")
	var pair struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(text), &pair); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := b.refresh(pair.RefreshToken); status != 200 {
		t.Errorf("the pair is refreshed with %d", status)
	}
	b.verb(0, "revoke", testDevice)
	device.await(func(m map[string]any) bool { return m["status"] == "viewer" })
	if out, _ := a.verb(0, "check"); !strings.Contains(out, "The engine of REDIS_URL: Redis 7") || strings.Contains(out, "WARNING") {
		t.Errorf("server check:\n%s", out)
	}
	viewer.cut()
	device.cut()
	for _, n := range []*node{a, b} {
		n.p.terminate()
		if strings.Contains(n.p.stderr.String(), "NOPERM") || strings.Contains(n.p.stderr.String(), enginePassword) {
			t.Errorf("the log of %s holds\n%s", n.addr, n.p.stderr)
		}
	}
}

const enginePassword = "pKx4vWq9LmZr2TbN"

// engineRules returns the rules of the shipped file, and more.
func engineRules(t *testing.T, more ...string) []string {
	t.Helper()
	rules, err := os.ReadFile("../deploy/engine.rules")
	if err != nil {
		t.Fatal(err)
	}
	return append(strings.Fields(string(rules)), more...)
}

// The servers need no other rules than those of the shipped file.
func TestEngineRules(t *testing.T) {
	rules := engineRules(t)
	engine := redistest.Start(t)
	engine.User("relay", enginePassword, rules...)
	url := "redis://relay:" + enginePassword + "@" + engine.Addr
	works(t, url)

	// A wrong password is told by the check, and not by the password.
	n := newNode(t, "", "REDIS_URL=redis://relay:no-"+enginePassword+"@"+engine.Addr)
	if out, _ := n.verb(1, "check"); !strings.Contains(out, "the engine refuses the user of REDIS_URL") || strings.Contains(out, enginePassword) {
		t.Errorf("server check:\n%s", out)
	}
	// So is one rule less.
	engine.User("poor", enginePassword, append(rules, "-info")...)
	n = newNode(t, "", "REDIS_URL=redis://poor:"+enginePassword+"@"+engine.Addr)
	if out, _ := n.verb(1, "check"); !strings.Contains(out, "NOPERM") {
		t.Errorf("server check:\n%s", out)
	}
}

func TestEngineOverTLS(t *testing.T) {
	_, tls := redistest.Redis.StartTLS(t)
	// The servers are processes of their own, which trust this certificate.
	// This process, which runs the commands, reads it too.
	t.Setenv("SSL_CERT_FILE", tls.CertFile)
	works(t, "rediss://"+tls.Addr, "SSL_CERT_FILE="+tls.CertFile)
	n := newNode(t, "", "REDIS_URL=redis://"+tls.Addr).run().is(503, "starting") // no TLS
	n.p.terminate()
}

// The history goes on at the promoted replica, whose address Sentinels tell.
func TestEngineFailover(t *testing.T) {
	t.Parallel()
	s := redistest.Redis.StartSentinels(t, time.Second)
	url := "redis://" + s.Addrs[0] + "?addr=" + s.Addrs[1] + "&addr=" + s.Addrs[2] + "&master_set=" + s.Name
	a, b := readyNode(t, "", "REDIS_URL="+url), readyNode(t, "", "REDIS_URL="+url)
	viewer, device := b.viewer(), a.publisher()
	device.publish("a")
	viewer.texts(1)
	s.Replica.InStep(s.Master.Addr)
	s.Master.Kill()
	device.publish("b", "c") // waits for the new master
	if texts, kinds := viewer.texts(2); texts[0] != "b" || texts[1] != "c" || kinds[0] != "live" {
		t.Errorf("after the failover, the viewer got %q in %q, want only what is new", texts, kinds)
	}
	a.is(200, "ready").shows("a", "b", "c")
	b.is(200, "ready")
}

// A cluster needs two rules more.
func TestEngineCluster(t *testing.T) {
	t.Parallel()
	c := redistest.Redis.StartCluster(t, 2*time.Second)
	addrs := c.Addrs()
	for _, s := range c.Servers {
		s.User("relay", enginePassword, engineRules(t, "+cluster|slots", "+cluster|shards")...)
	}
	works(t, "redis://relay:"+enginePassword+"@"+addrs[0]+"?addr="+addrs[1]+"&addr="+addrs[2])
}
