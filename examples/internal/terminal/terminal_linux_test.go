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

// A guarded terminal is still a terminal, and all that goes to it is guarded.
func TestGuardedTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	_, tty := testkit.Terminal(t)
	w := terminal.Guard(tty)
	if !terminal.Is(w) || !terminal.Colours(w) {
		t.Error("a guarded terminal does not count as a terminal")
	}
	if terminal.Data(w) != w {
		t.Error("data goes to a terminal without its guard")
	}
}
