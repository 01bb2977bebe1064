package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/examples/server/tracker"
)

// serve is what the program does without a verb.
func serve(ctx context.Context, demo bool, env envcheck.Lookup, stdout, stderr io.Writer) (exitCode int) {
	if demo {
		env = demoEnvironment(env)
	}
	cfg, err := config.Load(env)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	errs, err := tracker.New(cfg.Tracker())
	if err != nil {
		fmt.Fprintln(stderr, "server: errors cannot be sent (SENTRY_DSN):", errs.Clean(err.Error()))
		return exitFailed
	}
	defer errs.Close()
	log := slog.New(errs.Handler(cfg.Logger(stderr).Handler()))
	for _, n := range cfg.Spec().NearMisses(env) {
		log.Warn("a variable that is set is not one of this server's", "name", n.Set, "meant", n.Like)
	}
	s, err := site.New(cfg, site.Options{
		Load: func() (config.Config, error) { return config.Load(env) },
		Log:  log, Protect: errs.Protect,
	})
	if err == nil {
		err = listen(ctx, cfg, s, log, demo, stdout)
	}
	if err != nil {
		errs.Send("the server has ended", map[string]string{"error": err.Error()})
		fmt.Fprintln(stderr, "server:", err)
		return exitFailed
	}
	return exitOK
}

// noKeepAlive has the kernel send no keep-alives: WebSocket pings and
// net/http's timeouts find peers that are gone sooner, and through proxies too.
var noKeepAlive = net.ListenConfig{KeepAlive: -1}

// listen opens the listeners and serves s on them until ctx ends.
func listen(ctx context.Context, cfg config.Config, s *site.Site, log *slog.Logger, demo bool, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.Close() // as orderly if it does not come to serving
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		for {
			select {
			case <-hangups:
				_ = s.Reload() // logged
			case <-ctx.Done():
				return
			}
		}
	}()
	public, err := noKeepAlive.Listen(ctx, "tcp", cfg.Addr())
	if err != nil {
		return fmt.Errorf("%w (PORT and HOST choose another address)", err)
	}
	var operator net.Listener
	if cfg.OperatorAddr != "" {
		if operator, err = noKeepAlive.Listen(ctx, "tcp", cfg.OperatorAddr); err != nil {
			public.Close()
			return fmt.Errorf("%w (OPERATOR_ADDR chooses another address; empty is none)", err)
		}
		log.Info("operator listening", "addr", operator.Addr().String())
	}
	stopRedirect, err := s.ListenRedirect(public.Addr())
	if err != nil {
		public.Close()
		if operator != nil {
			operator.Close()
		}
		return err
	}
	defer stopRedirect()
	log.Info("listening", "addr", public.Addr().String(), "production", cfg.Production)
	if demo {
		stop, err := startDemo(ctx, cfg, public.Addr(), log, stdout)
		if err != nil {
			return errors.Join(err, public.Close())
		}
		defer func() {
			cancel()
			stop()
		}()
	}
	return s.Serve(ctx, public, operator)
}
