package bench_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/servicetest"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
)

const examples = "github.com/relayguard/relayguard/examples/"

// process is a service that runs in a process of its own.
type process struct {
	url string
	cmd *exec.Cmd
}

func startService(b *testing.B, pkg string, env ...string) *process {
	b.Helper()
	if runtime.GOOS != "linux" {
		b.Skip("only on Linux has every client an address of its own")
	}
	file := filepath.Join(b.TempDir(), "service")
	if out, err := exec.Command("go", "build", "-o", file, examples+pkg).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	addr := freeport.Addr(b)
	p := &process{"http://" + addr, exec.Command(file)}
	p.cmd.Env = append(os.Environ(), append(env, "ADDR="+addr, "ORIGIN=http://"+addr)...)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	testkit.Eventually(b, "the service accepts connections", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return p
}

// ticks returns the CPU time that the process has used, in units of the system.
func (p *process) ticks(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	fields := bytes.Fields(rest)
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return user + system
}

// compareServices lets a service and its peer do the same work in turns of n.
// It reports the peer's time, and the CPU time of its process, divided by ours.
func compareServices(b *testing.B, n int, ours, peer *process, here, there func(n int)) {
	here(n)
	there(n)
	cpuHere, cpuThere := ours.ticks(b), peer.ticks(b)
	var ratios []float64
	for b.Loop() {
		a := timed(contender{run: here}, n)
		z := timed(contender{run: there}, n)
		ratios = append(ratios, float64(z)/float64(a))
	}
	_, median, _ := quartiles(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median, "peer/ours")
	if used := ours.ticks(b) - cpuHere; used > 0 {
		b.ReportMetric((peer.ticks(b)-cpuThere)/used, "peer-cpu/ours")
	}
}

// BenchmarkChat compares the chat of examples/services with that of golang-jwt,
// keyfunc and gorilla/websocket: the verification of a token up to the refusal
// of a room, and a member's messages to 50 members.
//
//	go test -run '^$' -bench 'Chat|Dashboard' -benchtime 40x ./bench/
func BenchmarkChat(b *testing.B) {
	provider := servicetest.NewProvider(b)
	env := []string{"OIDC_ISSUER=" + provider.URL, "OIDC_AUDIENCE=" + servicetest.Audience}
	ours, peer := startService(b, "services/chat", env...), startService(b, "interop/services/chat", env...)
	here, there := servicetest.NewChatLoad(b, ours.url, provider, 50), servicetest.NewChatLoad(b, peer.url, provider, 50)
	b.Run("verify", func(b *testing.B) { compareServices(b, 100, ours, peer, here.Knock, there.Knock) })
	b.Run("publish", func(b *testing.B) { compareServices(b, 200, ours, peer, here.Say, there.Say) })
}

// BenchmarkDashboard compares the dashboard of examples/services with that of
// gin-contrib/sessions and coder/websocket: the check of a session and a value
// that goes to 50 WebSockets, and the check alone.
func BenchmarkDashboard(b *testing.B) {
	env := []string{"USERS_FILE=" + servicetest.Users(b), "TOPICS=sales stock"}
	ours, peer := startService(b, "services/dashboard", env...), startService(b, "interop/services/dashboard", env...)
	here, there := servicetest.NewDashboardLoad(b, ours.url, 50), servicetest.NewDashboardLoad(b, peer.url, 50)
	b.Run("publish", func(b *testing.B) { compareServices(b, 200, ours, peer, here.Publish, there.Publish) })
}
