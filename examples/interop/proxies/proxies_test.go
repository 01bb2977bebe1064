package proxies_test

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/interop/internal/relay"
)

// limit is small, so that a client reaches it soon.
const limit = 3

// forged are headers that a client can send to pretend to have another address.
// The relay of these tests trusts all loopback addresses, also those of the
// clients. So if a proxy passed a client's header on, the relay would believe
// it.
var forged = http.Header{
	"X-Forwarded-For":   {"203.0.113.66", "203.0.113.67, 127.0.0.1"},
	"X-Real-Ip":         {"203.0.113.68"},
	"Forwarded":         {`for=203.0.113.69;proto=http;host=evil.example`},
	"X-Forwarded-Proto": {"http"},
}

// each runs a test with both proxies in front of upstream, on TCP and on a Unix
// socket. upstream gets the relay's HOST, and returns the address.
func each(t *testing.T, upstream func(t *testing.T, host string) string, test func(*testing.T, proxy)) {
	for _, p := range proxies {
		t.Run(p.name+" tcp", func(t *testing.T) { test(t, p.start(t, upstream(t, "127.0.0.1"))) })
		t.Run(p.name+" unix", func(t *testing.T) { test(t, p.start(t, upstream(t, relay.Socket(t)))) })
	}
}

// TestWhatArrives checks the request that arrives behind a proxy when a client
// sends forged headers.
func TestWhatArrives(t *testing.T) {
	type arrival struct {
		host   string
		header http.Header
		body   int64
	}
	var arrived chan arrival
	upstream := func(t *testing.T, host string) string {
		arrived = make(chan arrival, 10)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			arrived <- arrival{r.Host, r.Header, n}
		}))
		addr := s.Listener.Addr().String()
		if path, ok := strings.CutPrefix(host, "unix:"); ok {
			s.Listener.Close()
			var err error
			if s.Listener, err = net.Listen("unix", path); err != nil {
				t.Fatal(err)
			}
			addr = host
		}
		s.Start()
		t.Cleanup(s.Close)
		return addr
	}
	each(t, upstream, func(t *testing.T, p proxy) {
		for _, send := range []http.Header{nil, forged} {
			for _, client := range []string{"127.0.0.2", "127.0.0.3"} {
				res := p.get(t, client, "/", send)
				if res.ProtoMajor != 2 {
					t.Errorf("the proxy answers with %s, not HTTP/2", res.Proto)
				}
				got := <-arrived
				for name, want := range map[string][]string{
					"X-Forwarded-For": {client}, "X-Real-Ip": {client}, "X-Forwarded-Proto": {"https"}, "Forwarded": nil,
				} {
					if !slices.Equal(got.header[name], want) {
						t.Errorf("%s: %q arrives from %s, want %q", name, got.header[name], client, want)
					}
				}
				if got.host != site {
					t.Errorf("Host: %q arrives, want %q", got.host, site)
				}
			}
		}

		post := func(size int64) int {
			req := request(t, http.MethodPost, "https://"+site+"/csp-reports", nil)
			req.Body, req.ContentLength = io.NopCloser(io.LimitReader(zeros{}, size)), size
			res, err := p.client("127.0.0.2").Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		const most = 64 << 10 // the relay reads at most this of a report
		if status := post(most); status != http.StatusOK {
			t.Errorf("a body of %d bytes is answered %d", most, status)
		} else if got := <-arrived; got.body != most {
			t.Errorf("%d bytes of %d arrive", got.body, most)
		}
		// nginx answers 413. Caddy should too, but Debian's version answers
		// 502.
		if status := post(16 * most); status < http.StatusBadRequest {
			t.Errorf("a body of %d bytes is answered %d", 16*most, status)
		}
	})
}

// TestGuide checks the promise of the security guide that needs a proxy. The
// subtest has its ID, as in examples/server.
func TestGuide(t *testing.T) { t.Run("N1", proxied) }

// proxied checks the real server behind a proxy.
func proxied(t *testing.T) {
	var server *relay.Server
	upstream := func(t *testing.T, host string) string {
		server = relay.New(t, "HOST="+host, "RATE_LIMIT_CONNECTIONS="+strconv.Itoa(limit), "RATE_LIMIT_WINDOW=1h")
		server.Start()
		return server.Addr
	}
	each(t, upstream, func(t *testing.T, p proxy) {
		p.redirects(t)
		p.headersOnce(t, server)
		p.streams(t, server)
		p.origins(t, server)
		p.limits(t, server)
	})
}

func (p proxy) redirects(t *testing.T) {
	t.Helper()
	res, err := p.client("127.0.0.2").Transport.RoundTrip(request(t, http.MethodGet, "http://"+site+"/a?b=c", nil))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	to, _ := res.Location()
	if res.StatusCode/100 != 3 || to == nil || to.Scheme != "https" || to.Hostname() != site || to.RequestURI() != "/a?b=c" {
		t.Errorf("port 80 answers %s to %v", res.Status, to)
	}
}

// headersOnce compares the page's headers with those that the relay itself
// sends.
func (p proxy) headersOnce(t *testing.T, server *relay.Server) {
	t.Helper()
	direct, err := server.Client().Do(request(t, http.MethodGet, "http://"+site+"/", nil))
	if err != nil {
		t.Fatal(err)
	}
	direct.Body.Close()
	through := p.get(t, "127.0.0.2", "/", nil)
	if direct.Header.Get("Content-Security-Policy") == "" || direct.Header.Get("Strict-Transport-Security") == "" {
		t.Fatalf("the relay's own answer lacks headers: %v", direct.Header)
	}
	for name, sent := range direct.Header {
		if name == "Date" || name == "Connection" {
			continue
		}
		if got := through.Header[name]; withoutNonces(got) != withoutNonces(sent) {
			t.Errorf("%s: the relay sends %q, and %q arrives", name, sent, got)
		}
	}
}

var nonce = regexp.MustCompile(`'nonce-[^']+'`)

// withoutNonces joins a header's lines and removes nonces, so that two answers
// can be compared.
func withoutNonces(lines []string) string {
	return nonce.ReplaceAllString(strings.Join(lines, "\n"), "'nonce'")
}

// streams publishes a message and reads it as a viewer, both through the proxy.
// It checks both clients' addresses in the log.
func (p proxy) streams(t *testing.T, server *relay.Server) {
	t.Helper()
	viewer := p.open(t, "127.0.0.4", "https://"+site, forged)
	device := p.open(t, "127.0.0.5", "", forged)
	say := func(text string) {
		t.Helper()
		if err := device.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say(`{"token":"` + server.Token() + `"}`)
	hears(t, device, `"authenticated"`)
	server.Logged(`"msg":"auth"`, `"addr":"127.0.0.5"`, `"subject":"pi-1"`)
	say(`{"text":"through the proxy"}`)
	hears(t, viewer, "through the proxy")
	p.events(t, say)
}

// events checks that server-sent events pass at once, compressed by nginx.
func (p proxy) events(t *testing.T, say func(string)) {
	t.Helper()
	req := request(t, http.MethodGet, "https://"+site+"/events", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := p.client("127.0.0.9").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var plain io.Reader = res.Body
	packed := res.Header.Get("Content-Encoding") == "gzip"
	if res.StatusCode != http.StatusOK || packed != strings.Contains(t.Name(), "nginx") {
		t.Fatalf("/events: %s, %v", res.Status, res.Header)
	}
	if packed {
		if plain, err = gzip.NewReader(plain); err != nil {
			t.Fatal(err)
		}
	}
	lines := bufio.NewScanner(plain)
	await := func(text string) {
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("no event has %q: %v", text, lines.Err())
	}
	await("through the proxy")
	for i := range 5 { // each arrives before the next is said
		text := fmt.Sprint("event ", i)
		say(`{"text":"` + text + `"}`)
		await(text)
	}
}

// origins checks that the relay recognises https pages as its own by the
// proxy's X-Forwarded-Proto, and that a client cannot forge this header.
func (p proxy) origins(t *testing.T, server *relay.Server) {
	t.Helper()
	for _, row := range []struct {
		origin string
		want   int
		why    string
	}{
		{"https://" + site, http.StatusSwitchingProtocols, "its own page"},
		{"http://" + site, http.StatusForbidden, "the page before the redirect, which an attacker on the network path can change"},
		{"https://evil.example", http.StatusForbidden, "a foreign page"},
	} {
		if ws, status := p.dial(t, "127.0.0.6", row.origin, forged); status != row.want {
			t.Errorf("%s: %d, want %d", row.why, status, row.want)
		} else if ws != nil {
			ws.CloseNow()
		}
	}
	req := request(t, http.MethodGet, "http://"+site+"/ws", http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Origin": {"https://" + site},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	})
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("without a proxy's X-Forwarded-Proto, an https origin gets %s", res.Status)
	}
}

// limits checks that a client that forges another address each time is limited,
// and that another client is not.
func (p proxy) limits(t *testing.T, server *relay.Server) {
	t.Helper()
	const greedy, neighbour = "127.0.0.7", "127.0.0.8"
	for i := range limit {
		p.open(t, greedy, "", as(i))
	}
	if ws, status := p.dial(t, greedy, "", as(limit)); ws != nil || status != http.StatusTooManyRequests {
		t.Errorf("over the limit: %d", status)
	}
	// The page asks why, without an upgrade.
	req := request(t, http.MethodGet, "https://"+site+"/ws", as(limit))
	res, err := p.client(greedy).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	after, err := strconv.Atoi(strings.Join(res.Header["Retry-After"], " and "))
	if res.StatusCode != http.StatusTooManyRequests || err != nil || after < 1 {
		t.Errorf("over the limit: %s, Retry-After %q", res.Status, res.Header["Retry-After"])
	}
	server.Logged(`"msg":"connection refused"`, `"client":"`+greedy)
	p.open(t, neighbour, "", http.Header{"X-Forwarded-For": {greedy}, "X-Real-Ip": {greedy}, "Forwarded": {"for=" + greedy}})
}

// as returns headers with a forged address that depends on i.
func as(i int) http.Header {
	addr := fmt.Sprintf("203.0.113.%d", i)
	return http.Header{"X-Forwarded-For": {addr}, "X-Real-Ip": {addr}, "Forwarded": {"for=" + addr}}
}

// client returns a client that connects from the given address to the proxy,
// whatever the host in the URL.
func (p proxy) client(from string) *http.Client {
	return &http.Client{Transport: p.transport(from, true)}
}

func (p proxy) transport(from string, h2 bool) *http.Transport {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := p.secure
			if strings.HasSuffix(addr, ":80") {
				to = p.plain
			}
			return dialer.DialContext(ctx, network, to)
		},
		TLSClientConfig:   &tls.Config{RootCAs: p.ca},
		ForceAttemptHTTP2: h2,
		DisableKeepAlives: true,
	}
}

func (p proxy) get(t *testing.T, from, path string, header http.Header) *http.Response {
	t.Helper()
	res, err := p.client(from).Do(request(t, http.MethodGet, "https://"+site+path, header))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, res.Status)
	}
	return res
}

// request returns a request with an Accept-Encoding of its own. Without it, the
// transport would decompress answers and hide that they were compressed.
func request(t *testing.T, method, url string, header http.Header) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), relay.Patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	return req
}

// dial opens a WebSocket. If it is refused, dial returns nil and the status.
func (p proxy) dial(t *testing.T, from, origin string, header http.Header) (*websocket.Conn, int) {
	t.Helper()
	header = header.Clone()
	if origin != "" {
		header.Set("Origin", origin)
	}
	ctx, cancel := context.WithTimeout(t.Context(), relay.Patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, "wss://"+site+"/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: p.transport(from, false)}, HTTPHeader: header,
	})
	if res == nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Cleanup(func() { ws.CloseNow() })
	}
	return ws, res.StatusCode
}

func (p proxy) open(t *testing.T, from, origin string, header http.Header) *websocket.Conn {
	t.Helper()
	ws, status := p.dial(t, from, origin, header)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("a WebSocket from %s is answered %d", from, status)
	}
	return ws
}

// hears reads until a message contains text.
func hears(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), relay.Patience)
	defer cancel()
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(string(data), text) {
			return
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
