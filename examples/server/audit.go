package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/trail"
	"github.com/relayguard/relayguard/headers"
)

func setupAudit(flags *flag.FlagSet) func(*call) error {
	n := flags.Int("n", 50, fmt.Sprintf("how many of the newest events to print, %d at most", trail.Length))
	follow := flags.Bool("f", false, "then print each new event on a line, until interrupted")
	return func(c *call) error {
		if *n < 0 || *n > trail.Length {
			return usageError(fmt.Sprintf("-n must be a number up to %d", trail.Length))
		}
		if err := c.noArgs(); err != nil {
			return err
		}
		if *follow {
			return c.followAudit(*n)
		}
		return ask(c, func(o *operate.Client, ctx context.Context) ([]trail.Entry, error) { return o.Audit(ctx, *n) },
			func(w io.Writer, list []trail.Entry) {
				if len(list) == 0 {
					fmt.Fprintln(w, "Nothing has happened yet.")
				}
				columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				for _, e := range list {
					fmt.Fprintln(columns, strings.Join(auditColumns(e), "\t"))
				}
				_ = columns.Flush()
			})
	}
}

// followAudit prints the newest n entries and then each new one, until the
// server stops or the user interrupts the command.
func (c *call) followAudit(n int) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	lines := json.NewEncoder(c.stdout)
	err = client.FollowAudit(c.ctx, n, func(e trail.Entry) error {
		if c.json {
			return lines.Encode(e)
		}
		col := auditColumns(e)
		_, err := fmt.Fprintf(c.stdout, "%s  %-10s  %-13s  %-15s  %s\n", col[0], col[1], col[2], col[3], col[4])
		return err
	})
	if c.ctx.Err() != nil {
		return nil // the user interrupted it
	}
	return err
}

// auditColumns returns the columns of an entry for people. A value that a
// stranger can choose is quoted, so that it cannot control the terminal.
func auditColumns(e trail.Entry) []string {
	var rest []string
	add := func(name, value string) {
		if value == "" {
			return
		}
		if quoted := strconv.QuoteToASCII(value); strings.ContainsAny(value, ` "=`) || quoted != `"`+value+`"` {
			value = quoted
		}
		rest = append(rest, name+"="+value)
	}
	add("reason", e.Reason)
	add("device", e.Device)
	add("room", e.Room)
	add("session", e.SessionID)
	add("token_id", e.TokenID)
	add("key_id", e.KeyID)
	if e.Until != nil {
		rest = append(rest, "until="+e.Until.Local().Format(time.RFC3339))
	}
	if e.Count > 0 {
		rest = append(rest, "count="+strconv.FormatUint(e.Count, 10))
	}
	add("detail", e.Detail)
	return []string{moment(e.Time), string(e.Kind), e.Outcome, e.Addr, strings.Join(rest, " ")}
}

func setupReports(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		return ask(c, (*operate.Client).Reports, writeReports)
	}
}

func writeReports(w io.Writer, stats headers.ReportStats) {
	fmt.Fprintf(w, "%d reports accepted, %d over the rate, %d new while the list was full, %d too large, %d malformed\n",
		stats.Accepted, stats.Throttled, stats.Overflow, stats.Oversize, stats.Malformed)
	if len(stats.Violations) == 0 {
		return
	}
	fmt.Fprintln(w)
	writeTable(w, stats.Violations, "", "COUNT\tKIND\tDIRECTIVE\tBLOCKED\tPAGE\tLAST", func(v headers.ViolationCount) []any {
		return []any{v.Count, v.Kind, v.Directive, v.Blocked, v.Page, v.Last.Format(time.DateTime)}
	})
}
