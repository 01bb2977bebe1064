package engine_test

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/examples/server/engine"
)

// An address is read as rueidis reads it, and what is refused is refused with a
// reason that does not quote it.
func TestParse(t *testing.T) {
	for _, row := range []struct {
		url, says, why string
		addrs          []string
		db             int
		tls            string // "" none, "-" each host's own name
		user, password string
		master         string
	}{
		{url: "redis://engine.example", addrs: []string{"engine.example:6379"}, why: "the default port"},
		{url: "redis://relay:p%40ss@[::1]:7000/2", addrs: []string{"[::1]:7000"}, db: 2, user: "relay", password: "p@ss", why: "all of it"},
		{url: "redis://:secret@h", addrs: []string{"h:6379"}, password: "secret", why: "a password alone, as before users existed"},
		{url: "valkey://h:1", addrs: []string{"h:1"}, why: "the other name"},
		{url: "rediss://h:1", addrs: []string{"h:1"}, tls: "h", why: "TLS: nodes of a cluster may have addresses only"},
		{url: "valkeys://h:1?addr=i:2", addrs: []string{"h:1", "i:2"}, tls: "-", why: "TLS of several hosts"},
		{url: "redis://h?addr=i&addr=j:7", addrs: []string{"h:6379", "i:6379", "j:7"}, why: "several nodes of a cluster"},
		{url: "redis://u:secret@h?addr=i&master_set=main&sentinel_password=other", addrs: []string{"h:26379", "i:26379"}, user: "u", password: "secret", master: "main", why: "Sentinels, with their port"},
		{url: "rediss://h:1?master_set=main", addrs: []string{"h:1"}, tls: "-", master: "main", why: "the master is another host than the Sentinel"},

		{url: "engine.example:6379", says: "like redis://", why: "no scheme"},
		{url: "http://h", says: "like redis://", why: "another protocol"},
		{url: "redis-sentinel://h", says: "like redis://", why: "a form of other clients"},
		{url: "redis://relay:100%secret@h", says: "%XX", why: "a password that is not escaped"},
		{url: "redis://relay:a/secret@h", says: "must", why: "a slash in a password"},
		{url: "redis://", says: "name hosts", why: "no host"},
		{url: "redis://h:0", says: "name hosts", why: "no port"},
		{url: "redis://h:99999", says: "name hosts", why: "no such port"},
		{url: "redis://h,i", says: "name hosts", why: "a list, as other clients write it"},
		{url: "redis://h?addr=i:x", says: "name hosts", why: "a malformed further host"},
		{url: "redis://h/one", says: "number of a database", why: "a name"},
		{url: "redis://h/1/", says: "number of a database", why: "more after it"},
		{url: "redis://h/-1", says: "number of a database", why: "below 0"},
		{url: "rediss://h?skip_verify=1", says: "no parameters but", why: "TLS that anybody can end"},
		{url: "redis://h?mastr_set=main", says: "no parameters but", why: "misspelt, which would connect to a Sentinel as an engine"},
		{url: "redis://h?master_set=", says: "no parameters but", why: "an empty name"},
		{url: "redis://h?master_set=a&master_set=b", says: "no parameters but", why: "two masters"},
		{url: "redis://h?sentinel_password=secret", says: "master_set", why: "no Sentinel is named"},
		{url: "redis://h#secret", says: "like redis://", why: "an unescaped # in a password"},
	} {
		o, err := engine.Parse(row.url)
		if row.addrs == nil {
			if err == nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s (%s): %v, want %q", row.url, row.why, err, row.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s (%s): %v", row.url, row.why, err)
			continue
		}
		tls := ""
		if o.TLSConfig != nil {
			if tls = o.TLSConfig.ServerName; tls == "" {
				tls = "-"
			}
			if o.TLSConfig.InsecureSkipVerify || o.Sentinel.TLSConfig != o.TLSConfig {
				t.Errorf("%s: TLS is not verified, or not for Sentinels", row.url)
			}
		}
		if !slices.Equal(o.InitAddress, row.addrs) || o.SelectDB != row.db || tls != row.tls || o.Username != row.user || o.Password != row.password || o.Sentinel.MasterSet != row.master {
			t.Errorf("%s (%s): got %q, database %d, TLS %q, user %q, password %q, master %q", row.url, row.why, o.InitAddress, o.SelectDB, tls, o.Username, o.Password, o.Sentinel.MasterSet)
		}
	}
	if got := engine.Secrets("redis://u:secret@h?master_set=m&sentinel_password=other"); !slices.Equal(got, []string{"secret", "other"}) {
		t.Errorf("the secrets are %q", got)
	}
}

// FuzzParse asserts that what is accepted has addresses to dial, and that
// rueidis reads the same from it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"redis://h", "rediss://u:p@[::1]:1/0?addr=h:2", "redis://h?master_set=m&sentinel_password=p", "valkey://h:65536", "redis://h?addr=[::1", "redis:h", "redis://%zz@h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		o, err := engine.Parse(url)
		if err != nil {
			return
		}
		for _, addr := range o.InitAddress {
			if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
				t.Errorf("%q: the address %q", url, addr)
			}
		}
		other, err := rueidis.ParseURL(url)
		if err != nil || other.Username != o.Username || other.Password != o.Password || other.SelectDB != o.SelectDB || other.Sentinel.MasterSet != o.Sentinel.MasterSet ||
			(other.TLSConfig == nil) != (o.TLSConfig == nil) || len(other.InitAddress) != len(o.InitAddress) {
			t.Errorf("%q: rueidis reads %+v (%v)", url, other, err)
		}
	})
}

// FuzzReport asserts that no answer to INFO makes the report fail.
func FuzzReport(f *testing.F) {
	f.Add("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n", 1)
	f.Add("redis_version:.\r\nmaxmemory_policy:x\r\nconnected_slaves:-9", 0)
	f.Fuzz(func(t *testing.T, info string, replicas int) {
		if r, err := engine.ReportOf(info, replicas); err == nil && r.Version == "" {
			t.Error("no version")
		}
	})
}

// What an engine says about itself is told with what is wrong with it.
func TestReport(t *testing.T) {
	const good = "redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nrole:master\r\nconnected_slaves:1\r\naof_enabled:1\r\n"
	for _, row := range []struct {
		info     string
		replicas int
		want     string
		warnings []string
		why      string
	}{
		{good, 1, "Redis 7.0.15, noeviction, an append-only file, replicas: 1", nil, "as it should be"},
		{good + "valkey_version:8.1.0\r\n", 0, "Valkey 8.1.0, noeviction, an append-only file, replicas: 1", nil, "Valkey also tells a version of Redis"},
		{strings.Replace(good, "7.0.15", "10.0", 1), 0, "Redis 10.0, noeviction, an append-only file, replicas: 1", nil, "a version of two digits"},
		{strings.Replace(good, "7.0.15", "6.2.14", 1), 0, "Redis 6.2.14, noeviction, an append-only file, replicas: 1", []string{"install 7.0 or later"}, "scripts need 7.0"},
		{strings.Replace(good, "noeviction", "allkeys-lru", 1), 0, "Redis 7.0.15, allkeys-lru, an append-only file, replicas: 1", []string{"set noeviction"}, "the history may be deleted"},
		{good, 2, "Redis 7.0.15, noeviction, an append-only file, replicas: 1", []string{"fewer replicas (1) than REDIS_REPLICAS (2)"}, "no erasure is complete"},
		{strings.Replace(good, "role:master", "role:slave", 1), 0, "Redis 7.0.15, noeviction, an append-only file, replicas: 1", []string{"is a replica"}, "the wrong one of two"},
		{"# Server\r\n", 0, "", nil, "no engine"},
	} {
		r, err := engine.ReportOf(row.info, row.replicas)
		if row.want == "" {
			if err == nil {
				t.Errorf("%s: %s", row.why, r)
			}
			continue
		}
		if err != nil || r.String() != row.want || len(r.Warnings) != len(row.warnings) {
			t.Errorf("%s: %s, %q, %v, want %s", row.why, r, r.Warnings, err, row.want)
			continue
		}
		for i, w := range row.warnings {
			if !strings.Contains(r.Warnings[i], w) {
				t.Errorf("%s: the warning is %q, want %q", row.why, r.Warnings[i], w)
			}
		}
	}
}
