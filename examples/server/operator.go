package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/relayguard/relayguard/headers"
	"github.com/relayguard/relayguard/wsauth"
)

// reportsVerb prints what browsers reported to the running server.
func reportsVerb(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server reports", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print the answer as it is")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	body, err := callOperator(ctx, env, "/reports")
	if err != nil {
		fmt.Fprintln(stderr, "server reports:", err)
		return exitFailed
	}
	if *asJSON {
		_, _ = stdout.Write(body)
		return exitOK
	}
	var stats headers.ReportStats
	if err := json.Unmarshal(body, &stats); err != nil {
		fmt.Fprintln(stderr, "server reports: the answer is not JSON")
		return exitFailed
	}
	fmt.Fprintf(stdout, "%d reports accepted, %d over the rate, %d beyond what is remembered, %d too large, %d malformed\n",
		stats.Accepted, stats.Throttled, stats.Overflow, stats.Oversize, stats.Malformed)
	if len(stats.Violations) > 0 {
		table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "\nCOUNT\tKIND\tDIRECTIVE\tBLOCKED\tPAGE\tLAST")
		for _, v := range stats.Violations {
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", v.Count, v.Kind, v.Directive, v.Blocked, v.Page, v.Last.Format(time.DateTime))
		}
		_ = table.Flush()
	}
	return exitOK
}

// callOperator asks the running server, with a token that lives for this call.
func callOperator(ctx context.Context, env lookup, path string) ([]byte, error) {
	cfg, err := loadConfig(env)
	if err != nil {
		return nil, err
	}
	if cfg.operatorAddr == "" {
		return nil, fmt.Errorf("OPERATOR_ADDR is empty, so the server takes no calls")
	}
	verifier, err := cfg.verifier()
	if err != nil {
		return nil, err
	}
	token, err := verifier.Sign(wsauth.Claims{Device: cfg.devices[0], Role: "admin", ExpiresAt: time.Now().Add(time.Minute)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.operatorAddr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// No proxy: the token is for the server alone.
	res, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (is the server running, with the same OPERATOR_ADDR?)", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answered %s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
