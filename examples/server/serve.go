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
	"runtime/debug"
	"syscall"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/examples/server/socket"
	"github.com/relayguard/relayguard/examples/server/tracker"
)

// serve runs the server, which is the program without a verb, and returns the
// exit code.
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
		log.Warn("the environment has an unknown variable, which resembles one of this server's", "name", n.Set, "meant", n.Like)
	}
	if !demo { // which has a device for a guest
		for _, warning := range cfg.RoomWarnings() {
			log.Warn(warning)
		}
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

// noKeepAlive turns the kernel's TCP keep-alives off. WebSocket pings and
// net/http's timeouts notice a lost peer sooner, and also behind a proxy.
var noKeepAlive = net.ListenConfig{KeepAlive: -1}

// listen opens the listeners and serves s on them until ctx ends.
func listen(ctx context.Context, cfg config.Config, s *site.Site, log *slog.Logger, demo bool, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.Close() // also if serving never begins
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
	public, err := listenPublic(ctx, cfg)
	if err != nil {
		return err
	}
	operators, err := listenOperators(ctx, cfg, log)
	if err != nil {
		public.Close()
		return err
	}
	stopRedirect, err := s.ListenRedirect(public.Addr())
	if err != nil {
		public.Close()
		for _, ln := range operators {
			ln.Close()
		}
		return err
	}
	defer stopRedirect()
	if os.Getenv("GOGC") == "" {
		counting := &counted{Listener: public, many: make(chan struct{}, 1)}
		c := collector{set: func(percent int) { debug.SetGCPercent(percent) }}
		go c.run(ctx, counting)
		public = counting
	}
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
	return s.Serve(ctx, public, operators...)
}

// listenPublic opens the public listener.
func listenPublic(ctx context.Context, cfg config.Config) (net.Listener, error) {
	ln, err := socket.Listen(ctx, noKeepAlive, cfg.Addr(), cfg.SocketAccess())
	switch _, unix := socket.Path(cfg.Addr()); {
	case err == nil:
		return ln, nil
	case unix:
		return nil, fmt.Errorf("%w (HOST and SOCKET_GROUP name the socket)", err)
	}
	return nil, fmt.Errorf("%w (set HOST or PORT to use another address)", err)
}

// listenOperators opens the listeners for the operator's calls.
func listenOperators(ctx context.Context, cfg config.Config, log *slog.Logger) (all []net.Listener, err error) {
	for _, addr := range cfg.OperatorAddrs {
		ln, err := socket.Listen(ctx, noKeepAlive, addr, socket.Owner)
		if err != nil {
			for _, ln := range all {
				ln.Close()
			}
			return nil, fmt.Errorf("%w (set OPERATOR_ADDR to another address, or empty to listen on none)", err)
		}
		all = append(all, ln)
		log.Info("operator listening", "addr", ln.Addr().String())
	}
	return all, nil
}
