package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/server/certificate"
	"github.com/relayguard/relayguard/examples/server/config"
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
		if err != nil {
			fmt.Fprintf(c.stdout, "\n%v\n", err)
			return exitError{code: exitFailed} // the error is printed already
		}
		fmt.Fprintln(c.stdout, "\nThe environment is usable.")
		return nil
	}
}

// reportCertificate prints whether the certificate can be used and for how
// long.
func reportCertificate(w io.Writer, cfg config.Config, now time.Time) error {
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
