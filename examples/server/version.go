package main

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// build describes the program.
type build struct {
	Version  string `json:"version"` // of the module; "(devel)" if it was built from a checkout
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`     // of the revision, in RFC 3339
	Modified bool   `json:"modified,omitempty"` // the checkout had changes that are not in the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

// buildOf returns the description in info, which may be nil.
func buildOf(info *debug.BuildInfo) build {
	b := build{Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info == nil {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// writeText writes b in one line, such as "relay v1.2.3, revision 0123abc of
// 2026-11-25T10:00:00Z, go1.26.8 linux/amd64".
func (b build) writeText(w io.Writer) {
	fmt.Fprintf(w, "relay %s", b.Version)
	if b.Revision != "" {
		fmt.Fprintf(w, ", revision %.12s of %s", b.Revision, b.Time)
	}
	if b.Modified {
		fmt.Fprint(w, " with changes")
	}
	fmt.Fprintf(w, ", %s %s/%s\n", b.Go, b.OS, b.Arch)
}

// setupVersion prints the program's version. It reads no environment.
func setupVersion(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		info, _ := debug.ReadBuildInfo()
		b := buildOf(info)
		return c.print(b, b.writeText)
	}
}
