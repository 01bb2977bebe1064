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
The doctor goes through the security guide's production checklists. It publishes
nothing. It opens up to 11 WebSocket connections at once, which uses up this
address's connections for a minute, and it shows three bad tokens: a fourth run
within ten minutes can bar the address from sending tokens for a while.
SSL_CERT_FILE names a file with more authorities to trust. With -json the doctor
prints one object: url, count, and items with id, checklist, point, outcome,
seen, mend.

Exit code: 0 no check failed, 1 a check failed, 2 wrong usage, 3 no answer.

`

func setupDoctor(flags *flag.FlagSet) func(*call) error {
	tokenFile := flags.String("token-file", "", "a `file` with a token, which must be accepted, or refused if it has expired; its device should not publish meanwhile")
	foreign := flags.String("origin", "https://evil.example", "a foreign `origin`, which must be refused")
	room := flags.String("room", "", "the `room` whose WebSocket is checked, if the server has rooms (ROOMS)")
	skip := flags.Bool("skip-rate-limit", false, "skip the check that uses up this address's connections")
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
		cfg := doctor.Config{URL: url, Room: *room, ForeignOrigin: *foreign, SkipRateLimit: *skip, Timeout: *timeout}
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
			err = exitError{code: exitFailed} // the report names the failures
		}
		return err
	}
}
