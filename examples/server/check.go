package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/server/certificate"
)

// checkVerb prints every variable with its source and state.
func checkVerb(env lookup, stdout io.Writer) int {
	var c config
	if err := c.spec().WriteReport(stdout, env); err != nil {
		return exitFailed
	}
	c, err := loadConfig(env)
	if err == nil {
		err = c.reportTLS(stdout, time.Now())
	}
	if err != nil {
		fmt.Fprintf(stdout, "\n%v\n", err)
		return exitFailed
	}
	fmt.Fprintln(stdout, "\nThe environment is usable.")
	return exitOK
}

// reportTLS prints whether the pair can be used and for how long.
func (c *config) reportTLS(w io.Writer, now time.Time) error {
	if c.tlsCert == "" {
		return nil
	}
	pair, err := certificate.Load(c.tlsCert, c.tlsKey)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	left := leaf.NotAfter.Sub(now)
	state := ""
	switch {
	case left <= 0:
		return fmt.Errorf("the certificate for %s has expired on %s", names(leaf.DNSNames), leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate for %s is not valid before %s", names(leaf.DNSNames), leaf.NotBefore.Format(time.DateOnly))
	case left < certificate.ExpiresSoon:
		state = "\nWARNING: renew it, or find out why it was not renewed"
	}
	fmt.Fprintf(w, "\nThe certificate for %s expires on %s, in %d days.%s\n", names(leaf.DNSNames), leaf.NotAfter.Format(time.DateOnly), int(left.Hours()/24), state)
	return nil
}

func names(of []string) string {
	if len(of) == 0 {
		return "no name"
	}
	return strings.Join(of, ", ")
}
