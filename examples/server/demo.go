package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// The devices of the demonstration: the built-in one, and one for a visitor who
// wants to publish too.
const (
	demoDevice  = "demo"
	guestDevice = "guest"
	demoTTL     = 24 * time.Hour
)

// demoVariables are the variables that a demonstration takes from its
// environment. The other variables belong to an installation, whose secrets,
// directories and error tracker a demonstration must neither read nor change.
var demoVariables = []string{"HOST", "PORT", "TRUSTED_PROXIES", "RATE_LIMIT_CONNECTIONS", "RATE_LIMIT_WINDOW", "LOG_LEVEL", "LOG_FORMAT"}

// demoEnvironment returns env reduced to demoVariables, with a new secret and
// the demonstration's devices. It turns the operator's listener off, since no
// operator knows the secret.
func demoEnvironment(env envcheck.Lookup) envcheck.Lookup {
	own := map[string]string{
		"JWT_SECRET":        newSecret(),
		"ALLOWED_DEVICE_ID": demoDevice + "," + guestDevice,
		"OPERATOR_ADDR":     "",
	}
	return func(name string) (string, bool) {
		if v, ok := own[name]; ok {
			return v, true
		}
		if !slices.Contains(demoVariables, name) {
			return "", false
		}
		v, ok := env(name)
		if _, err := netip.ParseAddr(v); name == "HOST" && err != nil && v != "localhost" {
			return "", false // some shells set HOST to the machine's name
		}
		return v, ok
	}
}

// startDemo starts the built-in device, which publishes to the server at addr,
// and prints the page's address and a guest's token to stdout. The device ends
// with ctx, and stop waits for its end.
func startDemo(ctx context.Context, cfg config.Config, addr net.Addr, log *slog.Logger, stdout io.Writer) (stop func(), err error) {
	guest, err := demoToken(cfg, guestDevice)
	if err != nil {
		return nil, err
	}
	host := reachable(addr)
	fmt.Fprintf(stdout, `
  The page:             http://%s/
  To publish as well:   connect to ws://%s/ws and send
                        {"token":"%s"}
                        {"text":"hello "}
  The device's memory figures are simulated: every two minutes its memory is full and its life ends.
  Stop with Ctrl-C.

`, host, host, guest)

	done := make(chan struct{})
	go func() {
		defer close(done)
		err := publish.Run(ctx, publish.Config{
			URL:    "ws://" + host + "/ws",
			Tokens: publish.TokenFunc(func() (string, error) { return demoToken(cfg, demoDevice) }),
			Source: mortal(),
			Logger: log.With("device", demoDevice),
		})
		if !errors.Is(err, context.Canceled) {
			log.Error("the built-in device ended", "error", err)
		}
	}()
	return func() { <-done }, nil
}

func demoToken(cfg config.Config, device string) (string, error) {
	return authority.Sign(site.Grants(cfg), refresh.Grant{Subject: device}, demoTTL, time.Now())
}

// demoMemory is the number of bytes of text that fill the built-in device's
// memory. The device publishes them in about two minutes, so that a visitor who
// watches for a while sees a life end.
const demoMemory = 5 << 10

// mortal returns the built-in device's source of text. Its memory figures are
// simulated, since a few words never fill the memory of a real computer.
func mortal() publish.Source {
	said := int64(0)
	muse := &publish.Muse{
		Life:    1 << 30, // only a full memory ends a life
		Mark:    publish.Mark{Percent: 98},
		Figures: func() *wire.Memory { return publish.Pretended(said, demoMemory) },
	}
	return sourceFunc(func(ctx context.Context) (wire.Message, error) {
		m, err := muse.Next(ctx)
		if m.Restarting() {
			said = 0
		}
		said += int64(len(m.Text))
		return m, err
	})
}

type sourceFunc func(context.Context) (wire.Message, error)

func (f sourceFunc) Next(ctx context.Context) (wire.Message, error) { return f(ctx) }

// reachable returns addr as a client on this machine can dial it: with
// localhost in place of an address that means all addresses, such as 0.0.0.0.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
