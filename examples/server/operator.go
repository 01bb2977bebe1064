package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/headers"
)

// operatorVerb is a command that asks the running server one thing and prints the
// answer.
type operatorVerb struct {
	name, args string
	flags      func(*flag.FlagSet)
	// call makes the request, of what is left of the command line.
	call func(rest []string) (method, path string, err error)
	// print shows the answer; not called where there is none.
	print func(w io.Writer, body []byte) error
	done  string // what to say where there is no answer

	// endless says that the answer has no end, and is for stream, as it comes.
	endless *bool
	stream  func(w io.Writer, asJSON bool, body io.Reader) error
}

func (v operatorVerb) run(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server "+v.name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print the answer as it is")
	if v.flags != nil {
		v.flags(flags)
	}
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s\n", strings.TrimSpace("server "+v.name+" [flags] "+v.args))
		flags.PrintDefaults()
	}
	rest, err := parseFlags(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitUsage
	}
	method, path, err := v.call(rest)
	if err != nil {
		fmt.Fprintf(stderr, "server %s: %v\n", v.name, err)
		flags.Usage()
		return exitUsage
	}
	if v.endless != nil && *v.endless {
		return v.follow(ctx, env, method, path, *asJSON, stdout, stderr)
	}
	body, err := callOperator(ctx, env, method, path)
	switch {
	case err != nil:
	case len(body) == 0 && *asJSON:
		fmt.Fprintln(stdout, `{"done":true}`)
	case len(body) == 0:
		fmt.Fprintln(stdout, v.done)
	case *asJSON:
		_, err = stdout.Write(body)
	default:
		err = v.print(stdout, body)
	}
	if err != nil {
		fmt.Fprintf(stderr, "server %s: %v\n", v.name, err)
		return exitFailed
	}
	return exitOK
}

// follow prints an answer until the server or an interrupt ends it.
func (v operatorVerb) follow(ctx context.Context, env lookup, method, path string, asJSON bool, stdout, stderr io.Writer) int {
	cfg, err := loadConfig(env)
	if err == nil {
		var res *http.Response
		if res, err = cfg.ask(ctx, method, path, nil); err == nil {
			defer res.Body.Close()
			err = v.stream(stdout, asJSON, res.Body)
		}
	}
	if ctx.Err() != nil {
		return exitOK // as asked
	}
	if err != nil {
		fmt.Fprintf(stderr, "server %s: %v\n", v.name, err)
		return exitFailed
	}
	return exitOK
}

var errArguments = errors.New("that is not what it takes")

// get is the call of a verb that takes nothing and asks for path.
func get(path string) func([]string) (string, string, error) {
	return func(rest []string) (string, string, error) {
		if len(rest) > 0 {
			return "", "", errArguments
		}
		return http.MethodGet, path, nil
	}
}

// table is a verb's print: a heading and a line for each element of a list.
func table[T any](empty, heading string, row func(T) []any) func(io.Writer, []byte) error {
	return show(func(w io.Writer, list []T) { printTable(w, list, empty, heading, row) })
}

func printTable[T any](w io.Writer, list []T, empty, heading string, row func(T) []any) {
	if len(list) == 0 {
		fmt.Fprintln(w, empty)
		return
	}
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, heading)
	for _, e := range list {
		cells := row(e)
		fmt.Fprintf(columns, strings.TrimSuffix(strings.Repeat("%v\t", len(cells)), "\t")+"\n", cells...)
	}
	_ = columns.Flush()
}

func show[T any](print func(io.Writer, T)) func(io.Writer, []byte) error {
	return func(w io.Writer, body []byte) error {
		var v T
		if err := json.Unmarshal(body, &v); err != nil {
			return errors.New("the answer is not this server's JSON")
		}
		print(w, v)
		return nil
	}
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

func operatorVerbs() []operatorVerb {
	var before string
	var end, reload bool
	return []operatorVerb{{
		name:  "reports",
		call:  get("/reports"),
		print: show(printReports),
	}, {
		name: "sessions",
		args: "[-end ID]",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&end, "end", false, "close the session of that ID instead; its token stays good")
		},
		call: func(rest []string) (string, string, error) {
			if !end {
				return get("/sessions")(rest)
			}
			if len(rest) != 1 {
				return "", "", errors.New("-end takes the ID of one session")
			}
			return http.MethodDelete, "/sessions/" + url.PathEscape(rest[0]), nil
		},
		print: table("Nobody may publish now.", "ID\tDEVICE\tROLE\tADDRESS\tSINCE\tENDS", func(s operate.Session) []any {
			return []any{s.ID, s.Device, s.Role, s.Addr, moment(s.Since), moment(s.EndsAt)}
		}),
		done: "The session is ended.",
	}, {
		name: "families",
		args: "[-end ID]",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&end, "end", false, "end the line of refresh tokens of that ID instead")
		},
		call: func(rest []string) (string, string, error) {
			if !end {
				return get("/families")(rest)
			}
			if len(rest) != 1 {
				return "", "", errors.New("-end takes the ID of one family")
			}
			return http.MethodDelete, "/families/" + url.PathEscape(rest[0]), nil
		},
		print: show(printFamilies),
		done:  "The family is ended, and what stood on its device's tokens.",
	}, {
		name: "revoke",
		args: "DEVICE",
		flags: func(f *flag.FlagSet) {
			f.StringVar(&before, "before", "", "spare tokens issued since this `time`, like 2026-11-24T18:00:00Z (default now)")
		},
		call: func(rest []string) (string, string, error) {
			if len(rest) != 1 || rest[0] == "" {
				return "", "", errors.New("name the device whose tokens are to be worthless")
			}
			path := "/devices/" + url.PathEscape(rest[0]) + "/revoke"
			if before != "" {
				if _, err := time.Parse(time.RFC3339, before); err != nil {
					return "", "", errors.New("-before must be a time like 2026-11-24T18:00:00Z")
				}
				path += "?before=" + url.QueryEscape(before)
			}
			return http.MethodPost, path, nil
		},
		print: show(func(w io.Writer, r operate.Revoked) {
			fmt.Fprintf(w, "Tokens of %s issued before %s are worthless: %d sessions and %d lines of refresh tokens ended.\n",
				r.Device, moment(r.Before), r.Sessions, r.Families)
			if !r.Lasting {
				fmt.Fprintln(w, "Without AUTH_DIR this is forgotten when the server restarts: change JWT_SECRET, or take the device off ALLOWED_DEVICE_ID.")
			}
		}),
	}, {
		name: "keys",
		args: "[-reload]",
		flags: func(f *flag.FlagSet) {
			f.BoolVar(&reload, "reload", false, "have the secrets' files read again, as SIGHUP does")
		},
		call: func(rest []string) (string, string, error) {
			if !reload {
				return get("/keys")(rest)
			}
			if len(rest) > 0 {
				return "", "", errArguments
			}
			return http.MethodPost, "/keys/reload", nil
		},
		print: table("There are no keys.", "KEY\tACCEPTED TOKENS\tLAST", func(k operate.Key) []any {
			name, last := "previous", "never"
			if k.Signs {
				name = "current"
			}
			if k.Last != nil {
				last = moment(*k.Last)
			}
			return []any{name, k.Count, last}
		}),
		done: "The secrets are read again.",
	}, blocksVerb(), blockVerb(), unblockVerb(), auditVerb()}
}

func printFamilies(w io.Writer, all operate.Families) {
	printTable(w, all.Families, "No device has a refresh token.", "ID\tDEVICE\tREFRESHES\tLAST\tENDS IF IDLE\tENDS", func(f operate.Family) []any {
		return []any{f.ID, f.Device, f.Refreshes, moment(f.RotatedAt), moment(f.ValidUntil), moment(f.EndsAt)}
	})
	if all.Unreadable != "" {
		fmt.Fprintln(w, "Others cannot be read:", all.Unreadable)
	}
}

func printReports(w io.Writer, stats headers.ReportStats) {
	fmt.Fprintf(w, "%d reports accepted, %d over the rate, %d beyond what is remembered, %d too large, %d malformed\n",
		stats.Accepted, stats.Throttled, stats.Overflow, stats.Oversize, stats.Malformed)
	if len(stats.Violations) == 0 {
		return
	}
	fmt.Fprintln(w)
	printTable(w, stats.Violations, "", "COUNT\tKIND\tDIRECTIVE\tBLOCKED\tPAGE\tLAST", func(v headers.ViolationCount) []any {
		return []any{v.Count, v.Kind, v.Directive, v.Blocked, v.Page, v.Last.Format(time.DateTime)}
	})
}

// callOperator asks the running server for what fits into memory.
func callOperator(ctx context.Context, env lookup, method, path string) ([]byte, error) {
	cfg, err := loadConfig(env)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := cfg.ask(ctx, method, path, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, 16<<20))
}

var errNoOperator = errors.New("OPERATOR_ADDR is empty, so the server takes no calls")

// ask calls the running server, with a token that lives for this call. Any answer
// but a good one is an error.
func (c *config) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	if c.operatorAddr == "" {
		return nil, errNoOperator
	}
	token, err := c.operatorToken(time.Now())
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.operatorAddr+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// No proxy: the token is for the server alone.
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (is the server running, with the same OPERATOR_ADDR?)", err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("the server answered %s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	return res, nil
}
