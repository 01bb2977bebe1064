// Command worker takes jobs from a queue over HTTP and posts signed results. It
// has thirty environment variables, which [config.Config] lists.
//
//	worker            work until SIGTERM
//	worker -check     report every variable, without a value
//	worker -example   print a .env file to fill in
//
// It reads the environment, then the credentials of systemd, then the file .env
// in the working directory.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/services/worker/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its arguments and outputs. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if err := work(ctx, args, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func work(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	credentials, err := envcheck.Credentials()
	if err != nil {
		return err
	}
	file, err := envcheck.Dotenv(".env")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	env := envcheck.Chain(os.LookupEnv, credentials, file)

	var cfg config.Config
	var redactor envcheck.Redactor
	spec := cfg.Spec()
	spec.Redactor, spec.Unset = &redactor, os.Unsetenv
	switch {
	case len(args) == 1 && args[0] == "-example":
		return spec.WriteExample(stdout)
	case len(args) == 1 && args[0] == "-check":
		return errors.Join(spec.WriteReport(stdout, env), spec.Check(env))
	case len(args) > 0:
		return errors.New("usage: worker [-check | -example]")
	}
	if err := spec.Load(env); err != nil {
		return err
	}
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var handler slog.Handler = slog.NewTextHandler(stderr, opts)
	if cfg.LogFormat == "json" {
		handler = slog.NewJSONHandler(stderr, opts)
	}
	log := slog.New(redactor.Handler(handler)).With("instance", cfg.Instance)
	for _, near := range spec.NearMisses(env) {
		log.Warn("a variable is probably misspelt", "name", near.Set, "meant", near.Like)
	}
	w, err := newWorker(cfg, log)
	if err != nil {
		return errors.New(redactor.Redact(err.Error()))
	}
	return w.run(ctx)
}
