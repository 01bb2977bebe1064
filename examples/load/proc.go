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

// process measures a process by /proc.
type process struct {
	pid int

	mu   sync.Mutex
	max  int64         // the most memory so far, in bytes
	last time.Duration // the CPU time when it was last measured
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

// now returns the CPU time so far and the memory in bytes. If the process has
// ended, that is the CPU time when it was last measured, and no memory.
func (p *process) now() (cpu time.Duration, rss int64) {
	cpu, rss, _ = p.usage()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max, p.last = max(p.max, rss), max(p.last, cpu)
	return p.last, rss
}

// processes are those of the servers. There may be none.
type processes []*process

func newProcesses(pids []int) (all processes) {
	for _, pid := range pids {
		all = append(all, &process{pid: pid})
	}
	return all
}

// check returns an error if one of them cannot be measured.
func (all processes) check() error {
	for _, p := range all {
		if _, _, err := p.usage(); err != nil {
			return fmt.Errorf("-server-pid %d: %w", p.pid, err)
		}
	}
	return nil
}

// cpu returns the CPU time of each so far.
func (all processes) cpu() (each []time.Duration) {
	for _, p := range all {
		cpu, _ := p.now()
		each = append(each, cpu)
	}
	return each
}

// rss returns the memory of all now, in bytes.
func (all processes) rss() (sum int64) {
	for _, p := range all {
		_, rss := p.now()
		sum += rss
	}
	return sum
}

// peak returns the sum of the most memory that was measured of each.
func (all processes) peak() (sum int64) {
	for _, p := range all {
		p.mu.Lock()
		sum += p.max
		p.mu.Unlock()
	}
	return sum
}

// watch measures them four times a second until ctx ends.
func (all processes) watch(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for len(all) > 0 {
		select {
		case <-tick.C:
			all.rss()
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
