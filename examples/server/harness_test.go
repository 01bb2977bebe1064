package main

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

const (
	testSecret = "tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd"
	testDevice = "pi-1"
)

// TestMain lets the test binary run as the server, so that tests can watch the
// server as a process: its exit code, its signals, its files.
func TestMain(m *testing.M) {
	if os.Getenv("RELAYGUARD_TEST_MAIN") != "" {
		main()
		return
	}
	// Parallel tests wait for answers and deadlines, not for a processor.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("8")
	}
	os.Exit(checkEveryLog(m.Run()))
}

// testSite is a server under test, in this process, on a real socket.
type testSite struct {
	t    *testing.T
	srv  *site.Site
	cfg  config.Config
	addr string // host:port
	op   string // host:port of the operator's listener
	logs *testkit.Log
	env  *atomic.Pointer[envcheck.Lookup] // the environment that a reload reads
	stop func() error                     // stops the server as a signal does; can be called twice
}

func start(t *testing.T, change func(*config.Config)) *testSite {
	t.Helper()
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	logs := newLog()
	env := new(atomic.Pointer[envcheck.Lookup])
	fixed := environment(nil)
	env.Store(&fixed)
	srv, err := site.New(cfg, site.Options{
		Load: func() (config.Config, error) { return config.Load(*env.Load()) },
		Log:  slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, op := loopback(t), loopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln, op) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	s := &testSite{t: t, srv: srv, cfg: cfg, addr: ln.Addr().String(), op: op.Addr().String(), logs: logs, env: env, stop: stop}
	if !cfg.RedisURL.IsZero() {
		s.readyz(200, "ready")
	}
	return s
}

func newToken(cfg config.Config, device string, ttl time.Duration) (string, error) {
	return authority.Sign(site.Grants(cfg), refresh.Grant{Subject: device}, ttl, time.Now())
}

// verifier returns a verifier with the server's secret, for tokens that the
// server does not make, such as a token of another time.
func verifier(t *testing.T, cfg config.Config) *jwtauth.Verifier {
	t.Helper()
	v, err := jwtauth.New(jwtauth.Config{Keys: cfg.Keys(), Subjects: cfg.Devices, SubjectClaim: "device", Roles: authority.Roles(nil), DefaultRole: "publisher"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// verb runs one of the operator's commands against the site.
func (s *testSite) verb(args ...string) (code int, output string) {
	s.t.Helper()
	var out bytes.Buffer
	code = run(s.t.Context(), args, environment(map[string]string{"OPERATOR_ADDR": s.op, "AUTH_DIR": s.cfg.AuthDir}), &out, &out)
	return code, out.String()
}

// testConfig returns the configuration of an environment with only the required
// variables.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Load(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// environment returns a complete environment with changes; "-" removes a
// variable.
func environment(changes map[string]string) envcheck.Lookup {
	env := map[string]string{"JWT_SECRET": testSecret, "ALLOWED_DEVICE_ID": testDevice}
	for k, v := range changes {
		if v == "-" {
			delete(env, k)
		} else {
			env[k] = v
		}
	}
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

func trustLoopback(c *config.Config) {
	c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

func (s *testSite) token(device string, ttl time.Duration) string {
	s.t.Helper()
	token, err := newToken(s.cfg, device, ttl)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// get requests path and returns the answer with its body. It does not follow
// redirects.
func (s *testSite) get(path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	return s.do("GET", path, header...)
}

func (s *testSite) do(method, path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil && res.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatal(err)
	}
	return res, string(body)
}

// peer is one WebSocket connection to a site.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
}

// connect opens a connection, or returns the status that refused it.
func connect(t *testing.T, addr string, header ...string) (*peer, *http.Response) {
	t.Helper()
	return connectTo(t, "ws://"+addr+"/ws", header...)
}

func connectTo(t *testing.T, url string, header ...string) (*peer, *http.Response) {
	t.Helper()
	return connectWith(t, &http.Client{Transport: &http.Transport{}}, url, header...)
}

func connectWith(t *testing.T, client *http.Client, url string, header ...string) (*peer, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	opts := &websocket.DialOptions{HTTPHeader: http.Header{}, HTTPClient: client}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			opts.Host = header[i+1]
			continue
		}
		opts.HTTPHeader.Add(header[i], header[i+1])
	}
	ws, res, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return nil, res
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { ws.CloseNow() })
	return &peer{t, ws}, res
}

func (s *testSite) viewer(header ...string) *peer {
	s.t.Helper()
	p, res := connect(s.t, s.addr, header...)
	if p == nil {
		s.t.Fatalf("refused: %s", res.Status)
	}
	return p
}

func (s *testSite) publisher() *peer {
	s.t.Helper()
	p := s.viewer()
	p.authenticate(s.token(testDevice, time.Hour))
	return p
}

func (p *peer) authenticate(token string) {
	p.t.Helper()
	p.send(`{"token":"` + token + `"}`)
	p.await(func(m map[string]any) bool { return m["status"] == "authenticated" })
}

func (p *peer) send(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	if err := p.ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatalf("sending: %v", err)
	}
}

// leave closes the connection as a browser does; cut closes it as a crash does.
func (p *peer) leave() { _ = p.ws.Close(websocket.StatusNormalClosure, "") }
func (p *peer) cut()   { _ = p.ws.CloseNow() }

// next returns the next message, decoded, or the error that ended the
// connection.
func (p *peer) next() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	_, data, err := p.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("not JSON: %q", data)
	}
	return m, nil
}

// await reads until a message matches, and returns it.
func (p *peer) await(pass func(map[string]any) bool) map[string]any {
	p.t.Helper()
	for {
		m, err := p.next()
		if err != nil {
			p.t.Fatalf("waiting for a message: %v", err)
		}
		if pass(m) {
			return m
		}
	}
}

// texts reads frames until it has n messages, and returns their texts and the
// types of their frames.
func (p *peer) texts(n int) (texts, kinds []string) {
	p.t.Helper()
	for len(texts) < n {
		m := p.await(func(m map[string]any) bool { return m["type"] != nil })
		kinds = append(kinds, m["type"].(string))
		for _, e := range m["messages"].([]any) {
			texts = append(texts, e.(map[string]any)["text"].(string))
		}
	}
	return texts, kinds
}

// until reads frames until one ends with text.
func (p *peer) until(text string) {
	p.t.Helper()
	p.await(func(m map[string]any) bool {
		messages, _ := m["messages"].([]any)
		return len(messages) > 0 && messages[len(messages)-1].(map[string]any)["text"] == text
	})
}

// end reads until the connection ends, and returns the messages before the end
// and the close code.
func (p *peer) end() (messages []map[string]any, code int) {
	p.t.Helper()
	for {
		m, err := p.next()
		if err != nil {
			return messages, int(websocket.CloseStatus(err))
		}
		messages = append(messages, m)
	}
}

// process is a server that runs as its own process.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string
	stdout *testkit.Log
	stderr *testkit.Log
	exited chan struct{}
}

// launch starts the server as a process. If listen is set, it waits until the
// server serves.
func launch(t *testing.T, listen bool, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, stdout: new(testkit.Log), stderr: newLog(), exited: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"RELAYGUARD_TEST_MAIN=1", "LOG_FORMAT=json", "OPERATOR_ADDR=", "HOME=" + dir, "TMPDIR=" + dir}, env...)
	p.cmd.Stdout = p.stdout
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		defer close(p.exited)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(p.stderr, lines.Text())
			var e struct{ Msg, Addr string }
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Msg == "listening" {
				listening <- e.Addr
			}
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	if listen {
		select {
		case p.addr = <-listening:
		case <-p.exited:
			t.Fatalf("the server ended:\n%s", p.stderr)
		case <-time.After(testkit.Patience):
			t.Fatalf("the server does not listen:\n%s", p.stderr)
		}
	}
	return p
}

// terminate sends SIGTERM and waits for the end.
func (p *process) terminate() (exitCode int) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	return p.wait()
}

func (p *process) wait() (exitCode int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(testkit.Patience):
		p.t.Fatalf("the server does not end:\n%s", p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// dial opens a connection whose break the test handles.
func dial(url string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	return ws, nil
}
