package main

import (
	"flag"
	"os"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/doctor"
)

const doctorNotes = `
It says what of the security guide's production checklists the server keeps, and
publishes nothing. It holds up to 11 WebSocket connections for a moment, which
uses up this address's for a minute, and shows three bad tokens: a fourth run
within ten minutes may get the address blocked. SSL_CERT_FILE names a file of
authorities to trust besides the usual. With -json it prints one object: url,
count, and items with id, checklist, point, outcome, seen, mend.

Exit code: 0 nothing failed, 1 something did, 2 usage, 3 no answer.

`

func setupDoctor(flags *flag.FlagSet) func(*call) error {
	tokenFile := flags.String("token-file", "", "a `file` with a token that must be accepted, or refused if it has expired; its device should not be publishing")
	foreign := flags.String("origin", "https://evil.example", "a foreign `origin`, which must be refused")
	skip := flags.Bool("skip-rate-limit", false, "do not use up this address's connections")
	timeout := flags.Duration("timeout", 10*time.Second, "how long each step may take")
	return func(c *call) error {
		url, err := c.oneArg("name the server's URL")
		if err != nil {
			return err
		}
		if _, err := doctor.ParseURL(url); err != nil {
			return usageError(err.Error())
		}
		if *timeout <= 0 {
			return usageError("-timeout must be positive")
		}
		if config.CheckOrigin(*foreign) != nil {
			return usageError("-origin must be like https://evil.example")
		}
		cfg := doctor.Config{URL: url, ForeignOrigin: *foreign, SkipRateLimit: *skip, Timeout: *timeout}
		if *tokenFile != "" {
			token, err := os.ReadFile(*tokenFile)
			if err != nil {
				return usageError(err.Error())
			}
			if cfg.Token = strings.TrimSpace(string(token)); cfg.Token == "" {
				return usageError(*tokenFile + " is empty")
			}
		}
		report, err := doctor.Run(c.ctx, cfg)
		if err != nil {
			return exitError{exitUnreachable, err}
		}
		if c.json {
			err = report.WriteJSON(c.stdout)
		} else {
			err = report.WriteText(c.stdout, terminal.Colours(c.stdout))
		}
		if err == nil && report.Failed() {
			err = exitError{code: exitFailed} // the report has said it
		}
		return err
	}
}
