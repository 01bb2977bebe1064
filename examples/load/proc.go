//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// clockTick is the unit of time in /proc/PID/stat. It is 10 ms on every Linux.
const clockTick = 10 * time.Millisecond

// process measures a process by /proc. If pid is 0, there is no process, and
// all results are 0.
type process struct {
	pid int

	mu  sync.Mutex
	max int64 // the most memory so far, in bytes
}

// check returns an error if the process cannot be measured.
func (p *process) check() error {
	if p.pid == 0 {
		return nil
	}
	if _, _, err := p.usage(); err != nil {
		return fmt.Errorf("-server-pid %d: %w", p.pid, err)
	}
	return nil
}

// usage returns the CPU time so far and the memory now, in bytes.
func (p *process) usage() (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStat(stat)
}

// parseStat returns utime + stime and rss, which are the fields 14, 15 and 24
// (proc_pid_stat(5)). It counts the fields after the command's name, because
// the name may contain spaces and parentheses.
func parseStat(stat []byte) (cpu time.Duration, rss int64, err error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return 0, 0, fmt.Errorf("the stat of the process has %d fields after its name", len(fields))
	}
	var n [3]int64
	for i, field := range []int{11, 12, 21} {
		if n[i], err = strconv.ParseInt(string(fields[field]), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(n[0]+n[1]) * clockTick, n[2] * int64(os.Getpagesize()), nil
}

// cpu returns the CPU time so far, or 0 if it is unknown.
func (p *process) cpu() time.Duration {
	if p.pid == 0 {
		return 0
	}
	cpu, _, _ := p.usage()
	return cpu
}

// rss returns the memory now, in bytes, or 0 if it is unknown. It also updates
// the value for peak.
func (p *process) rss() int64 {
	if p.pid == 0 {
		return 0
	}
	_, rss, _ := p.usage()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max = max(p.max, rss)
	return rss
}

// peak returns the largest value that rss has returned.
func (p *process) peak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max
}

// watch measures the memory four times a second until ctx ends.
func (p *process) watch(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for p.pid != 0 {
		select {
		case <-tick.C:
			p.rss()
		case <-ctx.Done():
			return
		}
	}
}

// ownCPU returns the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// checkFiles returns an error if the limit of open files is too low for n
// connections. The Go runtime has already raised the soft limit to the hard
// one.
func checkFiles(n int) error {
	const own = 64
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) >= uint64(n+own) {
		return nil // if the limit is unknown, dialling reports it
	}
	return fmt.Errorf("%d viewers need %d open files and the limit is %d: run `ulimit -n %d` first, here and for the server",
		n, n+own, limit.Cur, n+own)
}
