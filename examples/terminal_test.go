package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// outputs matches the ways to the standard outputs.
var outputs = regexp.MustCompile(`\bos\.Std(out|err)\b|\bfmt\.Print|\blog\.(Print|Fatal|Panic)|\bprintln\(`)

// TestOutputsAreGuarded checks that every program writes to its standard
// outputs in the file of its main function only, and that this file guards them
// against text that controls a terminal.
func TestOutputsAreGuarded(t *testing.T) {
	programs := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "services" || path == filepath.Join("interop", "services")):
			return filepath.SkipDir // programs to copy: they import no internal package, and log with slog or log.Fatal
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := comments.ReplaceAllString(string(source), "")
		isProgram := strings.Contains(text, "\nfunc main() {")
		if isProgram {
			programs++
		}
		switch used := outputs.FindAllString(text, -1); {
		case len(used) == 0 || strings.HasSuffix(path, "interop/bench/peers/centrifuge.go"): // log's output is guarded by main
		case !isProgram:
			t.Errorf("%s uses %q: take an io.Writer from main", path, used)
		case !strings.Contains(text, "terminal.Guard(os.Stderr)") && !strings.Contains(text, "terminal.Guard(stderr)"),
			strings.Contains(text, "os.Stdout") && !strings.Contains(text, "terminal.Guard(stdout)"):
			t.Errorf("%s does not guard its outputs with terminal.Guard", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if programs < 5 {
		t.Errorf("only %d programs are found", programs)
	}
}

// comments matches comments that begin a line or follow code.
var comments = regexp.MustCompile(`(?m)(^|\s)//.*$`)
