//go:build !linux

package redistest

import (
	"os/exec"
	"strconv"
)

func endWithParent(*exec.Cmd) {}

func pause(pid int) error { return exec.Command("kill", "-STOP", strconv.Itoa(pid)).Run() }

func unpause(pid int) error { return exec.Command("kill", "-CONT", strconv.Itoa(pid)).Run() }
