package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/relayguard/relayguard/examples/server/trail"
)

// auditVerb prints the newest events, and with -f those that come.
func auditVerb() operatorVerb {
	var follow bool
	var n int
	return operatorVerb{
		name: "audit",
		flags: func(f *flag.FlagSet) {
			f.IntVar(&n, "n", 50, fmt.Sprintf("how many of the newest events, %d at most", trail.Length))
			f.BoolVar(&follow, "f", false, "go on with those that come, one a line, until interrupted")
		},
		print: show(func(w io.Writer, list []trail.Entry) {
			if len(list) == 0 {
				fmt.Fprintln(w, "Nothing has happened yet.")
			}
			columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, e := range list {
				fmt.Fprintln(columns, strings.Join(columnsOf(e), "\t"))
			}
			_ = columns.Flush()
		}),
		call: func(rest []string) (string, string, error) {
			if n < 0 || n > trail.Length {
				return "", "", fmt.Errorf("-n must be a number up to %d", trail.Length)
			}
			path := "/audit?n=" + strconv.Itoa(n)
			if follow {
				path += "&follow=true"
			}
			return get(path)(rest)
		},
		endless: &follow,
		stream:  printFollowed,
	}
}

// columnsOf is an entry for people. What a stranger may have chosen is quoted, so
// that it does nothing to a terminal.
func columnsOf(e trail.Entry) []string {
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

// printFollowed prints entries as they come. The end is the server's.
func printFollowed(w io.Writer, asJSON bool, body io.Reader) error {
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // it only says that the server is there
		}
		var e trail.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return errors.New("the answer is not this server's JSON")
		}
		var err error
		if asJSON {
			_, err = fmt.Fprintf(w, "%s\n", lines.Bytes())
		} else {
			c := columnsOf(e)
			_, err = fmt.Fprintf(w, "%s  %-10s  %-13s  %-15s  %s\n", c[0], c[1], c[2], c[3], c[4])
		}
		if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the server has ended it, as it does when it stops")
}
