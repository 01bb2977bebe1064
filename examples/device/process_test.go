package main

//lint:file-ignore SA1019 nhooyr.io/websocket is frozen, and the transport that the project chose

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
)

// TestMain makes the test binary usable as the device, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RELAYGUARD_TEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is one that the test started.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *testkit.Log
	exited chan struct{}
}

// begin starts a command, and kills it at the end of the test. If cmd.Stderr is
// nil, the text is in process.stderr.
func begin(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, stderr: new(testkit.Log), exited: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = p.stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.exited); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-p.exited })
	return p
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) end(sig os.Signal) (code int) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	return p.wait()
}

func (p *process) wait() (code int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(testkit.Patience):
		p.t.Fatalf("does not end:\n%s", p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}

// eventually waits until ok returns true. If that takes too long, it shows what
// the processes in logs wrote.
func eventually(t *testing.T, what string, ok func() bool, logs ...*process) {
	t.Helper()
	defer func() {
		if t.Failed() {
			for _, p := range logs {
				t.Logf("%s:\n%.20000s", p.cmd.Args[0], p.stderr)
			}
		}
	}()
	testkit.Eventually(t, what, func() bool {
		if ok() {
			return true
		}
		if slices.ContainsFunc(logs, (*process).gone) {
			t.Fatalf("a process has ended before: %s", what)
		}
		return false
	})
}

// relay is the real server as a process.
type relay struct {
	*process
	t      *testing.T
	binary string
	env    []string
	addr   string
}

// startRelay builds the server and starts it.
func startRelay(t *testing.T) *relay {
	t.Helper()
	addr := freeport.Addr(t)
	_, port, _ := net.SplitHostPort(addr)
	dir := t.TempDir()
	r := &relay{t: t, binary: filepath.Join(dir, "server"), addr: addr, env: []string{
		"JWT_SECRET=tq8xJ2vR0mZs7LhYc4NwKe9UbPfGa3Dd", "ALLOWED_DEVICE_ID=pi-1", "PORT=" + port, "OPERATOR_ADDR=",
		"AUTH_DIR=" + filepath.Join(dir, "auth"), "ACCESS_TOKEN_LIFETIME=5s", "HOME=" + dir,
		"RATE_LIMIT_CONNECTIONS=1000",
		// The relay must remember its messages across a restart.
		"HISTORY_DIR=" + filepath.Join(dir, "history"), "HISTORY_KEY=" + base64.RawURLEncoding.EncodeToString([]byte("32 bytes that are no secret here")),
	}}
	if out, err := exec.Command("go", "build", "-o", r.binary, "../server").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.start()
	return r
}

func (r *relay) start() {
	r.t.Helper()
	cmd := exec.Command(r.binary)
	cmd.Env = r.env
	r.process = begin(r.t, cmd)
	eventually(r.t, "the server is ready", func() bool {
		res, err := http.Get("http://" + r.addr + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// token writes the output of the server's token verb to a file.
func (r *relay) token(args ...string) (file string) {
	r.t.Helper()
	cmd := exec.Command(r.binary, append([]string{"token"}, args...)...)
	cmd.Env = r.env
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	file = filepath.Join(r.t.TempDir(), "token.json")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

// message is a message as a viewer gets it.
type message struct {
	Text   string
	Prompt *string
	Memory *struct {
		Percent float64 `json:"percent_used"`
	}
	Status *struct {
		Restarting bool     `json:"is_restarting"`
		Restarts   *float64 `json:"num_restarts"`
	}
}

// watch calls see with every message that a viewer gets, even across restarts
// of the relay. It returns when the viewer is connected.
func (r *relay) watch(see func(message)) {
	r.t.Helper()
	connected := make(chan struct{})
	once := sync.OnceFunc(func() { close(connected) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pos := ""
		for ctx.Err() == nil {
			ws, _, err := websocket.Dial(ctx, "ws://"+r.addr+"/ws?since="+pos, nil)
			if err != nil {
				continue
			}
			once()
			ws.SetReadLimit(-1)
			for {
				_, data, err := ws.Read(ctx)
				if err != nil {
					break
				}
				var f struct {
					Pos      string
					Messages []message
				}
				if json.Unmarshal(data, &f) != nil {
					break
				}
				for _, m := range f.Messages {
					see(m)
				}
				pos = f.Pos
			}
			_ = ws.CloseNow()
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	select {
	case <-connected:
	case <-time.After(testkit.Patience):
		r.t.Fatal("the viewer does not get a connection")
	}
}

// device starts the device. If stderr is nil, process.stderr collects the text.
func (r *relay) device(stderr io.Writer, args ...string) *process {
	r.t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-relay", "ws://" + r.addr + "/ws"}, args...)...)
	cmd.Env = []string{"RELAYGUARD_TEST_MAIN=1", "LLM_API_KEY=key-canary7731", "PATH=" + os.Getenv("PATH")}
	cmd.Stderr = stderr
	return begin(r.t, cmd)
}

// counting starts a model whose text is numbers. Some of its answers break off,
// and some requests fail.
func counting(t *testing.T) (url string) {
	var mu sync.Mutex
	asked, n := 0, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer key-canary7731" {
			t.Error(r.URL)
		}
		if asked%3 == 2 {
			http.Error(w, "words-canary7731", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for range 40 {
			n++
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"%d \"}}]}\n\n", n)
			w.(http.Flusher).Flush()
			select {
			case <-pace.C:
			case <-r.Context().Done():
				return
			}
		}
		if asked%3 == 0 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv.URL + "/v1"
}

// TestDeviceAndRelay has an unreliable model, a relay that is restarted, tokens
// that are valid for five seconds, lives that end when memory is full, and a
// device that is killed. A viewer gets every number of a process once and in
// order.
func TestDeviceAndRelay(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	file, state := r.token("-pair"), filepath.Join(t.TempDir(), "state.json")
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	var last int        // the last number
	var lives []float64 // the numbers of the lives
	var signals, full int
	seen := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return last, len(lives)
	}
	whole := true // nothing was restarted or killed yet
	r.watch(func(m message) {
		mu.Lock()
		defer mu.Unlock()
		if m.Prompt != nil {
			if *m.Prompt != "Count." || m.Status == nil || m.Status.Restarts == nil {
				t.Errorf("a life begins with %+v", m)
				return
			}
			lives = append(lives, *m.Status.Restarts)
		}
		if m.Memory != nil && m.Memory.Percent > 50 {
			full++
		}
		if m.Status != nil && m.Status.Restarting {
			signals++
		}
		for _, word := range strings.Fields(m.Text) {
			var n int
			if _, err := fmt.Sscan(word, &n); err != nil || n <= last || n != last+1 && whole && len(lives) < 2 {
				t.Errorf("%q after %d", word, last)
			}
			last = n
		}
	})
	args := []string{"-token-file", file, "-llm", counting(t), "-model", "m", "-prompt", "Count.", "-simulate-memory", "3KiB", "-memory-mark", "80", "-state", state}
	device := r.device(nil, args...)

	eventually(t, "the pair was replaced, twice", func() bool {
		return strings.Count(device.stderr.String(), "token refreshed") >= 2
	}, device, r.process)
	mu.Lock()
	whole = false
	mu.Unlock()
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("the relay ended with %d", code)
	}
	r.start()
	n, _ := seen()
	eventually(t, "the stream goes on", func() bool { now, _ := seen(); return now > n+50 }, device, r.process)
	eventually(t, "two lives have ended", func() bool { _, lives := seen(); return lives >= 3 }, device, r.process)

	device.end(syscall.SIGKILL)
	n, before := seen()
	again := r.device(nil, args...)
	eventually(t, "it begins again where its files say", func() bool { now, l := seen(); return now > n+20 && l > before }, again, r.process)
	if code := again.end(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d\n%s", code, again.stderr)
	}

	mu.Lock()
	defer mu.Unlock()
	// A life that ended before its first word is not in the list, so one number
	// may be missing after the device was killed.
	for i, got := range lives {
		if i < 3 && got != float64(i) || i > 0 && got <= lives[i-1] {
			t.Errorf("the lives are %v", lives)
			break
		}
	}
	if signals < 3 || full == 0 {
		t.Errorf("%d restart signals, %d figures over half", signals, full)
	}
	var a, b struct {
		Token   string
		Refresh string `json:"refresh_token"`
	}
	now, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(first, &a) != nil || json.Unmarshal(now, &b) != nil || a.Refresh == b.Refresh {
		t.Errorf("the token file was not renewed: %v", err)
	}
	logs := device.stderr.String() + again.stderr.String()
	for _, secret := range []string{a.Token, a.Refresh, b.Token, b.Refresh, "key-canary7731", "words-canary7731", "Count.", "\x1b", "\r"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q:\n%s", secret, logs)
		}
	}
	if !strings.Contains(again.stderr.String(), "msg=ended") || strings.Contains(again.stderr.String(), "before all messages were acknowledged") {
		t.Errorf("the end:\n%s", again.stderr)
	}
}

// Without a model, the built-in generator publishes, with the real memory
// figures.
func TestBuiltInGenerator(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	words := make(chan message, 1000)
	r.watch(func(m message) {
		select {
		case words <- m:
		default:
		}
	})
	device := r.device(nil, "-token-file", r.token("-ttl", "1h"))
	var figures, prompts bool
	for n := 0; n < 10 || !figures || !prompts; n++ {
		select {
		case m := <-words:
			figures = figures || m.Memory != nil && m.Memory.Percent > 0
			prompts = prompts || m.Prompt != nil
		case <-time.After(testkit.Patience):
			t.Fatalf("%d words\n%s", n, device.stderr)
		}
	}
	if code := device.end(os.Interrupt); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(device.stderr.String(), "no refresh token") {
		t.Errorf("the log does not warn that the token expires:\n%s", device.stderr)
	}
}
