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

// clockTick is the unit of /proc/PID/stat, 1/100 s on every Linux.
const clockTick = 10 * time.Millisecond

// process reads what a process uses, from /proc. One with the id 0 is none.
type process struct {
	pid int

	mu  sync.Mutex
	max int64
}

// check says at once that nothing can be measured.
func (p *process) check() error {
	if p.pid == 0 {
		return nil
	}
	if _, _, err := p.usage(); err != nil {
		return fmt.Errorf("-server-pid %d: %w", p.pid, err)
	}
	return nil
}

func (p *process) usage() (cpu time.Duration, rss int64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, 0, err
	}
	return parseStat(stat)
}

// parseStat takes utime, stime and rss, fields 14, 15 and 24 (proc_pid_stat(5)). They are counted from behind the
// command's name, which may hold spaces and parentheses.
func parseStat(stat []byte) (cpu time.Duration, rss int64, err error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return 0, 0, fmt.Errorf("a process's stat has %d fields behind its name", len(fields))
	}
	var n [3]int64
	for i, field := range []int{11, 12, 21} {
		if n[i], err = strconv.ParseInt(string(fields[field]), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(n[0]+n[1]) * clockTick, n[2] * int64(os.Getpagesize()), nil
}

// cpu is the time used so far, 0 where it is not known.
func (p *process) cpu() time.Duration {
	if p.pid == 0 {
		return 0
	}
	cpu, _, _ := p.usage()
	return cpu
}

// rss is the memory held now, which it remembers if it is the most so far; 0 where it is not known.
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

// peak is the most memory that was seen.
func (p *process) peak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max
}

// watch looks at the memory until ctx ends.
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

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// checkFiles says how to raise the limit of open files where it is too low for n connections. The Go runtime has already
// raised the soft limit to the hard one.
func checkFiles(n int) error {
	const own = 64
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) >= uint64(n+own) {
		return nil // where the limit is not known, the dialling says it
	}
	return fmt.Errorf("%d viewers need %d open files and the limit is %d: run `ulimit -n %d` first, here and for the server",
		n, n+own, limit.Cur, n+own)
}
