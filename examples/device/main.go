// Command device is the publisher of the installation. A language model thinks
// aloud until the memory of the machine is full, and then begins anew. The
// device sends each piece of its text to the relay.
//
//	go run ./examples/server token -pair > token.json
//	go run ./examples/device -token-file token.json
//	go run ./examples/device -token-file token.json \
//		-llm http://localhost:11434/v1 -model NAME
//	mymodel | go run ./examples/device -token-file token.json -stdin
//
// Without -llm and -stdin, a built-in generator makes the text.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/llm"
	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/terminal"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stderr))
}

// run is main, with arguments instead of global variables. It returns the exit
// code. It guards its output against text that controls a terminal.
func run(ctx context.Context, args []string, env envcheck.Lookup, stderr io.Writer) int {
	stderr = terminal.Guard(stderr)
	cfg, err := loadConfig(args, env, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errFlags): // already printed
		return exitUsage
	case err != nil:
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	screen := newScreen(stderr)
	log := cfg.logger(screen, env)
	tokens, err := publish.NewCredential(publish.CredentialConfig{
		File: cfg.tokenFile, RefreshURL: cfg.refresh, InsecureRefreshOverHTTP: cfg.insecure, Logger: log,
	})
	if err != nil {
		fmt.Fprintf(stderr, "%v\n`go run ./examples/server token -pair` makes a token file.\n", err)
		return exitFailed
	}
	if !tokens.Refreshes() {
		log.Warn("the token file has no refresh token: the device stops publishing when the token expires")
	}

	l := newLives(cfg.stateFile, cfg.simulate, log)
	l.source = cfg.source(l, log)
	if cfg.plain {
		l.source = &plain{source: l.source}
	}
	board := new(board)
	l.observe = board.life
	stop := screen.show(board.line)
	err = publish.Run(ctx, publish.Config{
		URL: cfg.relay, Tokens: tokens, Source: &publish.Batch{Source: l, Window: cfg.batch}, Logger: log, Observe: board.connection,
	})
	stop()
	if cfg.stdin && errors.Is(err, io.EOF) {
		log.Info("the input has ended", "messages", board.acknowledged())
		return exitOK
	}
	if ctx.Err() == nil {
		log.Error("ended", "error", err)
		return exitFailed
	}
	log.Info("ended", "messages", board.acknowledged())
	return exitOK
}

// source returns the model or standard input, or the built-in generator if
// neither is configured.
func (c *config) source(l *lives, log *slog.Logger) publish.Source {
	if c.stdin {
		return &input{from: os.Stdin, prompt: c.prompt, restarts: l.first, figures: l.figures}
	}
	mark := publish.Mark{Percent: c.mark}
	if c.llm == "" {
		m := &publish.Muse{Restarts: l.first, Figures: l.figures, Mark: mark}
		if c.simulate > 0 {
			m.Life = 1 << 30 // only memory ends a life
		}
		return m
	}
	return &llm.Thinker{
		Model:  &llm.Model{URL: c.llm, Name: c.model, APIKey: c.apiKey, Silence: c.silence, Request: c.request},
		Prompt: c.prompt, Figures: l.figures, Mark: mark, Restarts: l.first, Window: c.window, Apart: c.reasoning == "apart", Logger: log,
	}
}
