package terminal_test

import (
	"testing"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/internal/testkit"
)

func TestColours(t *testing.T) {
	_, tty := testkit.Terminal(t)
	if !terminal.Is(tty) {
		t.Error("a terminal does not count as a terminal")
	}
	for _, row := range []struct {
		name, value string
		want        bool
	}{{"TERM", "xterm", true}, {"TERM", "dumb", false}, {"NO_COLOR", "1", false}} {
		t.Run(row.name+"="+row.value, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			t.Setenv("TERM", "xterm")
			t.Setenv(row.name, row.value)
			if got := terminal.Colours(tty); got != row.want {
				t.Errorf("colours %t, want %t", got, row.want)
			}
		})
	}
}
