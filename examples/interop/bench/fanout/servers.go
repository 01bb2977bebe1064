package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/internal/freeport"
)

// The cores of a measurement. The engine is on the core of the load, because it
// does so little: it works for each message and node, not for each delivery.
const (
	serverCore = "0"
	loadCore   = "1"
)

// process is a server that runs.
type process struct {
	addr string
	pid  int
	stop func()
}

// server starts a server of that name, and waits until it accepts viewers.
func (b *bench) server(ctx context.Context, name string, env []string) (*process, error) {
	addr, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	if isRelay(name) {
		_, port, _ := net.SplitHostPort(addr)
		up := ready
		switch name {
		case relayUnix:
			up = func(context.Context, string) bool { return listens("unix", b.socket()) }
		case relayTLS:
			up = listensTCP
		}
		return b.start(ctx, name, "server.log", serverCore, append(env, "PORT="+port), addr, up, filepath.Join(b.dir, "server"))
	}
	return b.start(ctx, name, "server.log", serverCore, env, addr, listensTCP, filepath.Join(b.dir, "peers"), "-peer", name, "-listen", addr)
}

// engine starts a redis-server that keeps nothing on the disk.
func (b *bench) engine(ctx context.Context) (*process, error) {
	addr, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	return b.start(ctx, "redis-server", "engine.log", loadCore, nil, addr, listensTCP,
		"redis-server", "--bind", host, "--port", port, "--save", "", "--dir", b.dir)
}

// start runs a program on one core, and waits until it is up. The output of
// the program is in the file log.
func (b *bench) start(ctx context.Context, name, log, core string, env []string, addr string, up func(context.Context, string) bool, program ...string) (*process, error) {
	cmd := exec.Command("taskset", append([]string{"-c", core}, program...)...)
	cmd.Env = env
	file, err := os.Create(filepath.Join(b.dir, log))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	limited := new(group)
	if core == serverCore && b.share < 1 {
		if limited, err = newGroup(b.share); err == nil {
			err = limited.add(cmd.Process.Pid)
		}
		if err != nil {
			_ = cmd.Process.Kill()
			<-ended
			return nil, err
		}
	}
	p := &process{addr: addr, pid: cmd.Process.Pid, stop: func() {
		defer limited.close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}}
	if err := await(ctx, func() bool { return up(ctx, addr) }, ended); err != nil {
		p.stop()
		text, _ := os.ReadFile(file.Name())
		return nil, fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(text))
	}
	return p, nil
}

// await waits until up returns true, or the process has ended.
func await(ctx context.Context, up func() bool, ended <-chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !up() {
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// socket is the path of the Unix socket of relay-unix.
func (b *bench) socket() string { return filepath.Join(b.dir, "relay.sock") }

func listensTCP(_ context.Context, addr string) bool { return listens("tcp", addr) }

// listens reports whether a server listens on addr.
func listens(network, addr string) bool {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// ready reports whether a relay accepts viewers.
func ready(ctx context.Context, addr string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}
