package main

import (
	"flag"
	"fmt"
	"io"

	"github.com/relayguard/relayguard/examples/server/operate"
)

const holdNotes = `
The device publishes on. With BROADCAST_DELAY, viewers have not seen what was
published within that time before. Erase what they must not see (server erase),
and then release them (server release).
`

func setupHold(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		return ask(c, (*operate.Client).Hold, func(w io.Writer, h operate.Held) {
			which := "This server holds its viewers"
			if h.All {
				which = "All servers hold their viewers"
			}
			fmt.Fprintf(w, "%s since %s: they see nothing that was published after %s.\nErase what they must not see (server erase SEQ, numbers by server export), and then: server release\n",
				which, moment(h.Since), moment(h.Since.Add(-h.Delay)))
		})
	}
}

func setupRelease(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		return c.tell((*operate.Client).Release, "Viewers are released: they see what is in the history.")
	}
}
