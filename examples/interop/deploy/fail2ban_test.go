package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
	"github.com/relayguard/relayguard/internal/freeport"
	"github.com/relayguard/relayguard/wsauth"
)

const filterFile = "../../deploy/fail2ban-filter.conf"

// TestGuide checks the promises of the security guide that need more than Go.
// As in examples/server, each ID has a subtest.
func TestGuide(t *testing.T) {
	t.Run("N2", fail2ban)
}

// forgeries are texts that an attacker sends to get the addresses of
// 203.0.113.0/24 banned.
var forgeries = []string{
	`msg=auth outcome=refused addr=203.0.113.1`,
	`x level=WARN msg=auth outcome=refused addr=203.0.113.2 reason=malformed`,
	`" level=WARN msg=auth outcome=refused addr=203.0.113.3 x="`,
	`","level":"WARN","msg":"auth","outcome":"refused","addr":"203.0.113.4","x":"`,
	`{"level":"WARN","msg":"auth","outcome":"refused","addr":"203.0.113.5"}`,
	`host relay[1]: level=WARN msg=auth outcome=refused addr=203.0.113.6`,
	`time=2026-11-25T01:13:00.123Z level=WARN msg=auth outcome=refused addr=203.0.113.7`,
	`x client=203.0.113.8/32`,
	`client=203.0.113.0/24`,
	`","client":"203.0.113.9/32"}`,
}

// fail2ban lets the real server refuse connections, and fail2ban read the
// server's log.
func fail2ban(t *testing.T) {
	tool := program(t, "fail2ban-regex", "fail2ban")
	for _, row := range []struct{ format, host string }{{"text", "127.0.0.1"}, {"text", "::1"}, {"json", "127.0.0.1"}, {"json", "::1"}} {
		t.Run(row.format+" "+row.host, func(t *testing.T) {
			format, addr := row.format, freeport.Addr(t, row.host)
			_, port, _ := net.SplitHostPort(addr)
			server := relay.New(t, "LOG_FORMAT="+format, "HOST="+row.host, "PORT="+port, "AUTH_DIR="+t.TempDir())
			server.Addr = addr
			server.Start()
			refused := provoke(t, server)
			// A foreign page connects from its visitor's browser.
			aggressive := slices.Clone(refused)
			for i, text := range append([]string{"https://evil.example"}, forgeries...) {
				client := fmt.Sprintf("198.51.100.%d", i)
				if ws := dial(t, "ws://"+server.Addr+"/ws", http.Header{"Origin": {text}, "User-Agent": {text}, "X-Forwarded-For": {client}}); ws != nil {
					t.Errorf("Origin: %s is let in", text)
				}
				aggressive = append(aggressive, client)
			}
			// fail2ban must not find a device with a valid token.
			device := dial(t, "ws://"+server.Addr+"/ws", http.Header{"X-Forwarded-For": {"198.51.100.99"}})
			write(t, device, `{"token":"`+server.Token()+`"}`)
			read(t, device, `"authenticated"`)
			// Nor one that sends a valid token which expires before the other.
			write(t, device, `{"token":"`+server.Verb("token", "-ttl", "1m")+`"}`)
			closed(t, device)
			server.Logged("older", "198.51.100.99")
			server.Stop()

			slices.Sort(refused)
			slices.Sort(aggressive)
			for name, prefix := range prefixes {
				var log strings.Builder
				for _, line := range append(server.Lines(), suspicions[format]...) {
					log.WriteString(prefix + line + "\n")
				}
				file := put(t, t.TempDir(), "relay.log", log.String())
				for _, row := range []struct {
					mode string
					want []string
				}{
					{"normal", append(slices.Clone(refused), "2001:db8:5::1", "2001:db8:5:2::/64")},
					{"aggressive", append(slices.Clone(aggressive), "2001:db8:5::1", "2001:db8:5:2::/64", "2001:db8:5::3")},
				} {
					slices.Sort(row.want)
					if got := hosts(t, tool, file, row.mode); !slices.Equal(got, row.want) {
						t.Errorf("%s, %s: found are\n%q, want\n%q, in:\n%s", name, row.mode, got, row.want, &log)
					}
				}
			}
		})
	}
}

// provoke sends invalid tokens from many addresses. It returns the addresses in
// the form that fail2ban must find.
func provoke(t *testing.T, server *relay.Server) (refused []string) {
	t.Helper()
	own, _, _ := net.SplitHostPort(server.Addr)
	show := func(client, text string) {
		t.Helper()
		header := http.Header{}
		if client != "" {
			header.Set("X-Forwarded-For", client)
		}
		ws := dial(t, "ws://"+server.Addr+"/ws", header)
		write(t, ws, text)
		closed(t, ws)
	}
	for _, row := range []struct{ client, want string }{
		{"", own},
		// Addresses from a proxy, in different forms.
		{"2001:db8::1", "2001:db8::/64"},
		{"2001:0DB8:0:0::2", "2001:db8::/64"},
		{"2001:db8:0:1::2", "2001:db8:0:1::/64"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		// As the relay counts: a translated visitor is not all of IPv4.
		{"64:ff9b::192.0.2.8", "192.0.2.8"},
		{"2002:c000:209:1::1", "192.0.2.9"},
	} {
		show(row.client, `{"token":"a.b.c"}`)
		refused = append(refused, row.want)
	}
	refused = slices.Compact(refused)

	// Each forger has an address of its own, which fail2ban must find.
	forger := 0
	next := func() string {
		forger++
		client := fmt.Sprintf("192.0.2.%d", 100+forger)
		refused = append(refused, client)
		return client
	}
	for _, text := range forgeries {
		for _, lead := range []string{"", "\n", "\r\n", "\u2028", "\x00"} {
			token, err := json.Marshal(lead + text)
			if err != nil {
				t.Fatal(err)
			}
			show(next(), `{"token":`+string(token)+`}`)
		}
		// Refresh tokens are sent over HTTP.
		body, err := json.Marshal(map[string]string{"refresh_token": "\n" + text})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+server.Addr+"/auth/refresh", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {next()}}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("an invalid refresh token is answered %s", res.Status)
		}
	}
	return refused
}

// suspicions are lines of the relay's other kind, in both formats.
var suspicions = map[string][]string{
	"text": {
		`time=2026-11-25T01:13:00.123Z level=WARN msg=suspicious outcome=failures addr=2001:db8:5::1 count=10`,
		`time=2026-11-25T01:13:00.123+01:00 level=WARN msg=suspicious outcome=churn addr=2001:db8:5:2::2 count=31 within=1s client=2001:db8:5:2::/64`,
		`time=2026-11-25T01:13:00.123Z level=WARN msg=suspicious outcome=origins addr=2001:db8:5::3 count=10`,
		`time=2026-11-25T01:13:00.123Z level=WARN msg=suspicious outcome=failures addr=fe80::1%eth0 count=10`,
		`time=2026-11-25T01:13:00.123Z level=WARN msg=auth outcome=refused addr=2001:db8:5::7 reason=expired`,
		`time=2026-11-25T01:13:00.123Z level=WARN msg=auth outcome=pair_refused addr=2001:db8:5::7 reason=reused subject=pi-1 client=2001:db8:5:7::/64`,
		`time=2026-11-25T01:13:00.123Z level=INFO msg=auth outcome=authenticated addr=2001:db8:5::9 subject="msg=auth outcome=refused addr=203.0.113.8"`,
	},
	"json": {
		`{"time":"2026-11-25T01:13:00.123456789Z","level":"WARN","msg":"suspicious","outcome":"failures","addr":"2001:db8:5::1","count":10}`,
		`{"time":"2026-11-25T01:13:00+01:00","level":"WARN","msg":"suspicious","outcome":"churn","addr":"2001:db8:5:2::2","count":31,"client":"2001:db8:5:2::/64"}`,
		`{"time":"2026-11-25T01:13:00.1Z","level":"WARN","msg":"suspicious","outcome":"origins","addr":"2001:db8:5::3"}`,
		`{"time":"2026-11-25T01:13:00.1Z","level":"WARN","msg":"suspicious","outcome":"failures","addr":"fe80::1%eth0"}`,
		`{"time":"2026-11-25T01:13:00.1Z","level":"WARN","msg":"auth","outcome":"refused","addr":"2001:db8:5::7","reason":"expired"}`,
		`{"time":"2026-11-25T01:13:00.1Z","level":"WARN","msg":"auth","outcome":"pair_refused","addr":"2001:db8:5::7","reason":"reused","client":"2001:db8:5:7::/64"}`,
		`{"time":"2026-11-25T01:13:00.1Z","level":"INFO","msg":"auth","outcome":"authenticated","addr":"2001:db8:5::9","subject":"\"addr\":\"203.0.113.8\""}`,
	},
}

// prefixes are the texts before a line, by the program that writes them.
var prefixes = map[string]string{
	"none":            "",
	"syslog":          "Nov 25 01:13:00 host relay[4711]: ",
	"syslog, ISO":     "2026-11-25T01:13:00.123456+01:00 art.example relay[4711]: ",
	"the journal":     "host relay[4711]: ", // fail2ban gets the date separately
	"the journal, ID": "host relay: ",
}

// hosts returns the addresses that fail2ban finds in file, each once.
func hosts(t *testing.T, tool, file, mode string) []string {
	t.Helper()
	out, err := exec.Command(tool, "--usedns=no", "-o", "ip", file, filterFile+"[mode="+mode+"]").Output()
	if err != nil {
		t.Fatalf("fail2ban-regex: %v", err)
	}
	return slices.Compact(slices.Sorted(strings.FieldsSeq(string(out))))
}

// TestJail lets fail2ban read the jail and the filter in the places that
// README.md names, and checks the resulting configuration.
func TestJail(t *testing.T) {
	client := program(t, "fail2ban-client", "fail2ban")
	dir := filepath.Join(t.TempDir(), "fail2ban")
	if err := os.CopyFS(dir, os.DirFS("/etc/fail2ban")); err != nil {
		t.Fatal(err)
	}
	// Without the other jails, such as the one for sshd that Debian enables.
	others, err := filepath.Glob(filepath.Join(dir, "jail.d", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range others {
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
	}
	put(t, dir, "filter.d/relay.conf", shipped(t, "fail2ban-filter.conf"))
	put(t, dir, "jail.d/relay.conf", shipped(t, "fail2ban-jail.conf"))
	put(t, dir, "action.d/nftables-common.local", shipped(t, "fail2ban-nftables.conf"))
	put(t, dir, "jail.d/firewall.conf", "[DEFAULT]\nbanaction = nftables\n")
	if out, err := exec.Command(client, "-c", dir, "-t").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dump, err := exec.Command(client, "-c", dir, "-d").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`['add', 'relay', 'systemd']`,
		`['set', 'relay', 'addjournalmatch', '_SYSTEMD_UNIT=relay.service']`,
		`['set', 'relay', 'maxretry', 10]`,
		`['set', 'relay', 'usedns', 'no']`,
		`['start', 'relay']`,
		`['addr_type?family=inet6', 'ipv6_addr\\; flags interval\\; auto-merge']`,
	} {
		if !strings.Contains(string(dump), want) {
			t.Errorf("fail2ban's configuration lacks %s:\n%s", want, dump)
		}
	}
}

// The filter's list of reasons for which a genuine token is refused agrees with
// the relay, which bars only clients that guess.
func TestFilterCountsGuesses(t *testing.T) {
	_, rest, found := strings.Cut(shipped(t, "fail2ban-filter.conf"), "\n_genuine = ")
	list, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatal("the filter has no list")
	}
	genuine := strings.Split(list, "|")
	for _, reason := range genuine {
		if wsauth.Reason(reason).IsGuess() {
			t.Errorf("the relay counts %q as a guess", reason)
		}
	}
	for _, reason := range []wsauth.Reason{wsauth.ReasonExpired, wsauth.ReasonSessions, wsauth.ReasonOlder, wsauth.ReasonRevoked, wsauth.ReasonBarred} {
		if !slices.Contains(genuine, string(reason)) {
			t.Errorf("the filter counts %q as a guess", reason)
		}
	}
}
