package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/relayguard/relayguard/examples/server/lives"
	"github.com/relayguard/relayguard/examples/server/operate"
)

// setupLives lists the lives that are kept, or erases them.
func setupLives(flags *flag.FlagSet) func(*call) error {
	room := flags.String("room", "", "list only the lives of this `room`")
	erase := flags.String("erase", "", "erase the life with this `ID`")
	all := flags.Bool("erase-all", false, "erase all lives that are kept")
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		switch {
		case *erase != "" && *all:
			return usageError("-erase and -erase-all exclude each other")
		case *room != "" && (*erase != "" || *all):
			return usageError("-room is for the list alone: -erase takes the ID of a life of any room, and -erase-all erases those of all rooms")
		case *erase != "":
			return c.tell(func(o *operate.Client, ctx context.Context) error { return o.EraseLife(ctx, *erase) }, "The life is erased.")
		case *all:
			return c.tell((*operate.Client).EraseLives, "All lives are erased.")
		}
		return ask(c, func(o *operate.Client, ctx context.Context) ([]lives.Life, error) {
			o.Room = *room
			return o.Lives(ctx)
		}, printLives)
	}
}

func printLives(w io.Writer, list []lives.Life) {
	writeTable(w, list, "No life is kept.", "ID\tROOM\tLIFE\tENDED\tLASTED\tMESSAGES\tBYTES\tMEMORY\tNOTE", func(l lives.Life) []any {
		number, memory, note := "-", "-", ""
		if l.Number != nil {
			number = fmt.Sprint(*l.Number)
		}
		if l.MemoryPercent != nil {
			memory = fmt.Sprintf("%.0f %%", *l.MemoryPercent)
		}
		switch {
		case l.Unreadable:
			return []any{l.ID, "?", "-", moment(l.Ended), "-", "-", l.Bytes, "-", "unreadable: another key, or damaged"}
		case l.Truncated && l.Incomplete:
			note = "its end and perhaps its beginning are missing"
		case l.Truncated:
			note = "its end is missing (LIVES_MAX_BYTES)"
		case l.Incomplete:
			note = "perhaps its beginning is missing"
		}
		return []any{l.ID, cmp.Or(l.Room, "-"), number, moment(l.Ended), l.Ended.Sub(l.Began).Round(time.Second), l.Messages, l.Bytes, memory, note}
	})
}
