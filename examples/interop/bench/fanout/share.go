package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// sharePeriod is how often a server gets its share anew. With the system's 100
// ms, a server would pause for longer than the delays that are measured.
const sharePeriod = 10 * time.Millisecond

// group is a control group of Linux that limits the processor time of a
// process.
type group struct{ dir string }

// newGroup makes a group that gets a share of one core. It needs root and
// version 1 or 2 of control groups (Linux, Documentation/admin-guide).
func newGroup(share float64) (*group, error) {
	period := sharePeriod.Microseconds()
	quota := int64(share * float64(period))
	limits := [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, period)}}
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cpu", "cpu.cfs_quota_us")); err == nil {
		root = filepath.Join(root, "cpu")
		limits = [][2]string{{"cpu.cfs_period_us", strconv.FormatInt(period, 10)}, {"cpu.cfs_quota_us", strconv.FormatInt(quota, 10)}}
	}
	dir, err := os.MkdirTemp(root, "fanout-")
	if err != nil {
		return nil, fmt.Errorf("-share needs control groups (run as root): %w", err)
	}
	g := &group{dir}
	for _, l := range limits {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, l[0]), []byte(l[1]), 0o600))
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("-share needs the cpu controller of control groups: %w", err)
	}
	return g, nil
}

// add puts a process into the group, with all its threads.
func (g *group) add(pid int) error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600)
}

// close removes the group, whose processes must have ended.
func (g *group) close() {
	if g.dir != "" {
		_ = os.Remove(g.dir)
	}
}
