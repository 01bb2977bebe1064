package terminal_test

import (
	"io"
	"os"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/terminal"
)

func TestIs(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	for _, row := range []struct {
		why string
		f   any
	}{
		{"the null device, a character device that services and cron jobs write to", null},
		{"a pipe", write},
		{"no file at all", io.Discard},
		{"nothing", nil},
	} {
		if terminal.Is(row.f) || terminal.Colours(row.f) {
			t.Errorf("%s: counts as a terminal", row.why)
		}
	}
}
