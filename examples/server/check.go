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

	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/engine"
	"github.com/relayguard/relayguard/examples/server/socket"
)

// setupCheck prints every variable with its source and state.
func setupCheck(*flag.FlagSet) func(*call) error {
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		var cfg config.Config
		if err := cfg.Spec().WriteReport(c.stdout, c.env); err != nil {
			return err
		}
		cfg, err := c.config()
		if err == nil {
			err = reportCertificate(c.stdout, cfg, time.Now())
		}
		if err == nil {
			err = reportEngine(c.ctx, c.stdout, cfg)
		}
		if err == nil {
			err = reportSocket(c.stdout, cfg)
		}
		if err == nil {
			err = reportLives(c.stdout, cfg)
		}
		if err != nil {
			fmt.Fprintf(c.stdout, "\n%v\n", err)
			return exitError{code: exitFailed} // the error is printed already
		}
		if warnings := cfg.RoomWarnings(); warnings != nil {
			fmt.Fprintf(c.stdout, "\nWARNING: %s\n", strings.Join(warnings, "\nWARNING: "))
		}
		fmt.Fprintln(c.stdout, "\nThe environment is usable.")
		return nil
	}
}

// reportSocket prints who may connect to the Unix socket in HOST.
func reportSocket(w io.Writer, cfg config.Config) error {
	path, ok := socket.Path(cfg.Addr())
	if !ok {
		return nil
	}
	access := cfg.SocketAccess()
	if err := access.Check(path); err != nil {
		return err
	}
	group := "of a new file there"
	if access.Group != "" {
		group = access.Group
	}
	_, err := fmt.Fprintf(w, "\nThe Unix socket %s gets the mode %04o and the group %s. A process that may connect is trusted as a proxy.\n", path, access.Mode, group)
	return err
}

// reportLives prints how long lives are kept, or why they cannot be.
func reportLives(w io.Writer, cfg config.Config) error {
	if cfg.LivesDir == "" {
		return nil
	}
	if err := cfg.CheckLives(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nLives that end are kept in %s for %s, %d at most. Anyone can see them at /lives.\n", cfg.LivesDir, cfg.LivesMaxAge, cfg.LivesKeep)
	return err
}

// reportCertificate prints whether the certificate can be used and for how
// long.
func reportCertificate(w io.Writer, cfg config.Config, now time.Time) error {
	if cfg.ACMEDomains != nil {
		return reportACME(w, cfg)
	}
	if cfg.TLSCert == "" {
		return nil
	}
	pair, err := certificate.Load(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	names := strings.Join(leaf.DNSNames, ", ")
	if names == "" {
		names = "no name"
	}
	left := leaf.NotAfter.Sub(now)
	state := ""
	switch {
	case left <= 0:
		return fmt.Errorf("the certificate for %s has expired on %s", names, leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate for %s is not valid before %s", names, leaf.NotBefore.Format(time.DateOnly))
	case left < certificate.ExpiresSoon:
		state = "\nWARNING: renew it, or find out why it was not renewed"
	}
	_, err = fmt.Fprintf(w, "\nThe certificate for %s expires on %s, in %d days.%s\n", names, leaf.NotAfter.Format(time.DateOnly), int(left.Hours()/24), state)
	return err
}

// reportACME prints from whom the certificates come, and which are there.
func reportACME(w io.Writer, cfg config.Config) error {
	// The directory is not made here: it would belong to the user of this
	// command.
	if _, err := os.Stat(cfg.ACMEDir); err == nil {
		if err := certificate.CheckDir(cfg.ACMEDir); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nThe certificates come from %s.\n", cfg.ACMEDirectory())
	for _, domain := range cfg.ACMEDomains {
		if leaf, err := certificate.Cached(cfg.ACMEDir, domain); err != nil {
			fmt.Fprintf(w, "The certificate for %s is not there yet: the server gets it at its start.\n", domain)
		} else {
			fmt.Fprintf(w, "The certificate for %s expires on %s.\n", domain, leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if cfg.Port != 443 && cfg.RedirectAddr == "" {
		fmt.Fprint(w, "WARNING: the authority asks at port 443 or 80 of each domain: set PORT=443 or HTTP_REDIRECT_ADDR, unless one of these ports is forwarded\n")
	}
	if !cfg.RedisURL.IsZero() {
		fmt.Fprint(w, "WARNING: servers that share REDIS_URL must share TLS_ACME_DIR too, or let the load balancer end TLS\n")
	}
	return nil
}

// reportEngine prints what the engine says about itself. An engine that cannot
// be reached is no error, because the server starts without it, and waits.
func reportEngine(ctx context.Context, w io.Writer, cfg config.Config) error {
	e, err := cfg.NewEngine(nil)
	if e == nil || err != nil {
		return err
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	report, err := e.Examine(ctx)
	switch {
	case errors.Is(err, engine.ErrRefused):
		return err
	case err != nil:
		fmt.Fprintf(w, "\nWARNING: the engine of REDIS_URL cannot be used now; the server would wait for it: %v\n", err)
		return nil
	case !e.Encrypted():
		report.Warnings = append(report.Warnings, "REDIS_URL is not encrypted, and leads to another machine: use rediss://, or a network that is closed to others")
	}
	fmt.Fprintf(w, "\nThe engine of REDIS_URL: %s.\n", report)
	for _, warning := range report.Warnings {
		fmt.Fprintf(w, "WARNING: %s\n", warning)
	}
	return nil
}
