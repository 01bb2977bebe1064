package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
)

func blocksVerb() operatorVerb {
	return operatorVerb{
		name: "blocks",
		call: get("/blocks"),
		print: table("Nothing is blocked by hand.", "PREFIX\tUNTIL\tAFTER A RESTART", func(b operate.Block) []any {
			after := "forgotten"
			if b.Lasting {
				after = "in force"
			}
			return []any{b.Prefix, ends(b), after}
		}),
	}
}

func ends(b operate.Block) string {
	if b.Until == nil {
		return "for ever"
	}
	return moment(*b.Until)
}

func blockVerb() operatorVerb {
	var length time.Duration
	var ever, force bool
	return operatorVerb{
		name: "block",
		args: "PREFIX",
		flags: func(f *flag.FlagSet) {
			f.DurationVar(&length, "for", operate.DefaultBlock, "how long")
			f.BoolVar(&ever, "forever", false, "until it is unblocked, or the server restarts")
			f.BoolVar(&force, "force", false, "also if that is every address there is")
		},
		call: func(rest []string) (string, string, error) {
			if len(rest) != 1 {
				return "", "", errors.New("name one address, or a prefix like 192.0.2.0/24")
			}
			network, err := operate.ParseNetwork(rest[0])
			if err != nil {
				return "", "", err
			}
			query := url.Values{"prefix": {network.String()}}
			switch {
			case ever && length != operate.DefaultBlock:
				return "", "", errors.New("-for and -forever exclude each other")
			case length <= 0:
				return "", "", errors.New("-for must be a duration like 90m or 24h")
			case ever:
				query.Set("forever", "true")
			default:
				query.Set("for", length.String())
			}
			if force {
				query.Set("force", "true")
			}
			return http.MethodPost, "/blocks?" + query.Encode(), nil
		},
		print: show(func(w io.Writer, b operate.Blocked) {
			until := "for ever"
			if b.Until != nil {
				until = "until " + moment(*b.Until)
			}
			fmt.Fprintf(w, "%s is blocked %s; open connections ended: %d.\n", b.Prefix, until, b.Connections)
			switch {
			case b.Lasting:
			case b.Until == nil:
				fmt.Fprintln(w, "A restart of the server ends this; with AUTH_DIR, -for outlasts one.")
			default:
				fmt.Fprintln(w, "Without AUTH_DIR, a restart of the server ends this.")
			}
		}),
	}
}

func unblockVerb() operatorVerb {
	return operatorVerb{
		name: "unblock",
		args: "PREFIX",
		call: func(rest []string) (string, string, error) {
			if len(rest) != 1 {
				return "", "", errors.New("name one address or prefix, as `server blocks` prints it")
			}
			network, err := operate.ParseNetwork(rest[0])
			if err != nil {
				return "", "", err
			}
			return http.MethodDelete, "/blocks/" + network.String(), nil
		},
		done: "The block is ended, and failures and penalties in it are forgiven.",
	}
}
