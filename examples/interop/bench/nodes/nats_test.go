package nodes_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsDir is the variable that makes this program a NATS server, with its files
// in that directory. As the engines are processes of their own, so is NATS.
const natsDir = "NODES_TEST_NATS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(natsDir); dir != "" {
		if err := serveNATS(dir); err != nil {
			fmt.Fprintln(os.Stderr, "nats:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveNATS runs a server with JetStream until standard input ends. It prints
// its URL. Then it answers each line with its CPU time so far in microseconds.
func serveNATS(dir string) error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(30 * time.Second) {
		return errors.New("not ready in time")
	}
	fmt.Println(s.ClientURL())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Println((u.Utime.Nano() + u.Stime.Nano()) / 1000)
	}
	return nil
}

// natsServer is a NATS server in a process of its own.
type natsServer struct {
	url string
	cpu func() time.Duration
}

// startNATS starts a server, which ends with the test, and also if the test's
// process ends.
func startNATS(b testing.TB) natsServer {
	b.Helper()
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), natsDir+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	answers := bufio.NewReader(out)
	line := func() string {
		text, err := answers.ReadString('\n')
		if err != nil {
			b.Errorf("nats: %v", err)
		}
		return strings.TrimSpace(text)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("nats: %v", err)
		}
	})
	var mu sync.Mutex
	return natsServer{url: line(), cpu: func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if _, err := io.WriteString(in, "\n"); err != nil {
			b.Errorf("nats: %v", err)
		}
		us, err := strconv.ParseInt(line(), 10, 64)
		if err != nil {
			b.Errorf("nats: %v", err)
		}
		return time.Duration(us) * time.Microsecond
	}}
}
