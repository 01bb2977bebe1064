package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/relayguard/relayguard/examples/server/blocklist"
	"github.com/relayguard/relayguard/examples/server/operate"
)

func setupBlocks(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		return ask(c, (*operate.Client).Blocks,
			func(w io.Writer, list []blocklist.Block) {
				writeTable(w, list, "Nothing is blocked.", "PREFIX\tBLOCKED\tUNTIL\tAFTER A RESTART", func(b blocklist.Block) []any {
					until, after := "forever", "forgotten"
					if b.Until != nil {
						until = moment(*b.Until)
					}
					if b.Lasting {
						after = "in force"
					}
					what := "by the operator"
					if b.Tokens {
						what = "tokens only"
					}
					return []any{b.Prefix, what, until, after}
				})
			})
	}
}

func setupBlock(flags *flag.FlagSet) func(*call) error {
	length := flags.Duration("for", operate.DefaultBlock, "how long the block lasts")
	forever := flags.Bool("forever", false, "block until the network is unblocked or the server restarts")
	force := flags.Bool("force", false, "block even all addresses, such as 0.0.0.0/0")
	return func(c *call) error {
		text, err := c.oneArg("name one address, or a prefix like 192.0.2.0/24")
		if err != nil {
			return err
		}
		network, err := blocklist.ParsePrefix(text)
		switch {
		case err != nil:
			return usageError(err.Error())
		case *forever && *length != operate.DefaultBlock:
			return usageError("-for and -forever exclude each other")
		case *length <= 0:
			return usageError("-for must be a duration like 90m or 24h")
		case *forever:
			*length = 0
		}
		return ask(c, func(o *operate.Client, ctx context.Context) (blocklist.Blocked, error) {
			return o.Block(ctx, network, *length, *force)
		}, func(w io.Writer, b blocklist.Blocked) {
			until := "forever"
			if b.Until != nil {
				until = "until " + moment(*b.Until)
			}
			fmt.Fprintf(w, "%s is blocked %s; open connections ended: %d.\n", b.Prefix, until, b.Connections)
			switch {
			case b.Lasting:
			case b.Until == nil:
				fmt.Fprintln(w, "A restart of the server ends this block. With AUTH_DIR, a block with -for outlasts a restart.")
			default:
				fmt.Fprintln(w, "Without AUTH_DIR, a restart of the server ends this block.")
			}
		})
	}
}

func setupUnblock(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		text, err := c.oneArg("name one address or prefix, as `server blocks` prints it")
		if err != nil {
			return err
		}
		network, err := blocklist.ParsePrefix(text)
		if err != nil {
			return usageError(err.Error())
		}
		return c.tell(func(o *operate.Client, ctx context.Context) error { return o.Unblock(ctx, network) },
			"The block is ended, and the failures and penalties of its addresses are forgiven.")
	}
}
