package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/doctor"
)

// exitUnreachable is the doctor's, apart from exitFailed so that a CI job can tell
// a bad deployment from a missing one.
const exitUnreachable = 3

const doctorUsage = `usage: server doctor [flags] URL

Looks at a running server from outside and says what of the security guide's
production checklists it keeps. It publishes nothing. It holds up to 11
WebSocket connections for a moment, which uses up this address's for a minute,
and shows three bad tokens: a fourth run within ten minutes may get the address
blocked. SSL_CERT_FILE names a file of authorities to trust besides the usual.

Exit code: 0 nothing failed, 1 something did, 2 usage, 3 no answer.

`

func doctorVerb(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("server doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, doctorUsage); flags.PrintDefaults() }
	asJSON := flags.Bool("json", false, "print one JSON object: url, count, and items with id, checklist, point, outcome, seen, mend")
	tokenFile := flags.String("token-file", "", "a `file` with a token that must be accepted, or refused where it has expired; its device should not be publishing")
	foreign := flags.String("origin", "https://evil.example", "a foreign `origin`, which must be refused")
	skip := flags.Bool("skip-rate-limit", false, "do not use up this address's connections")
	timeout := flags.Duration("timeout", 10*time.Second, "how long each step may take")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	wrong := func(err error) int {
		fmt.Fprintln(stderr, "server doctor:", err)
		return exitUsage
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return exitUsage
	}
	if _, err := doctor.ParseURL(flags.Arg(0)); err != nil {
		return wrong(err)
	}
	if *timeout <= 0 {
		return wrong(errors.New("-timeout must be positive"))
	}
	if origin(*foreign) != nil {
		return wrong(errors.New("-origin must be like https://evil.example"))
	}
	cfg := doctor.Config{URL: flags.Arg(0), ForeignOrigin: *foreign, SkipRateLimit: *skip, Timeout: *timeout}
	if *tokenFile != "" {
		token, err := os.ReadFile(*tokenFile)
		if err != nil {
			return wrong(err)
		}
		if cfg.Token = strings.TrimSpace(string(token)); cfg.Token == "" {
			return wrong(fmt.Errorf("%s is empty", *tokenFile))
		}
	}
	report, err := doctor.Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, "server doctor:", err)
		return exitUnreachable
	}
	if *asJSON {
		err = report.WriteJSON(stdout)
	} else {
		err = report.WriteText(stdout, terminal.Colours(stdout))
	}
	if err != nil {
		fmt.Fprintln(stderr, "server doctor:", err)
		return exitFailed
	}
	if report.Failed() {
		return exitFailed
	}
	return exitOK
}
