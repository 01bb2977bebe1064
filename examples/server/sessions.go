package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/operate"
)

func setupSessions(flags *flag.FlagSet) func(*call) error {
	end := flags.Bool("end", false, "close the session with this ID instead; its token stays valid")
	return func(c *call) error {
		if *end {
			id, err := c.oneArg("-end takes the ID of one session")
			if err != nil {
				return err
			}
			return c.tell(func(o *operate.Client, ctx context.Context) error { return o.EndSession(ctx, id) }, "The session is ended.")
		}
		if err := c.noArgs(); err != nil {
			return err
		}
		return ask(c, (*operate.Client).Sessions,
			func(w io.Writer, list []operate.Session) {
				defer c.watching(w)
				writeTable(w, list, "No connection may publish now.", "ID\tDEVICE\tROLE\tROOM\tADDRESS\tSINCE\tENDS\tNODE", func(s operate.Session) []any {
					return []any{s.ID, s.Device, s.Role, cmp.Or(s.Room, "-"), s.Addr, moment(s.Since), moment(s.EndsAt), s.Node}
				})
			})
	}
}

// watching prints how many watch. A server of an earlier version does not tell.
func (c *call) watching(w io.Writer) {
	client, err := c.client()
	if err != nil {
		return
	}
	n, err := client.Watching(c.ctx)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "Connections that watch: %s.\n", watchers(n.All, n.Here))
	for _, r := range n.Rooms {
		if r.All == 0 {
			continue // there can be a thousand of them
		}
		fmt.Fprintf(w, "  %s: %s\n", r.Room, watchers(r.All, r.Here))
	}
}

func watchers(all, here int) string {
	if all == here {
		return strconv.Itoa(all)
	}
	return fmt.Sprintf("%d, of which %d on this server", all, here)
}

func setupFamilies(flags *flag.FlagSet) func(*call) error {
	end := flags.Bool("end", false, "end the family of refresh tokens with this ID instead")
	prolong := flags.Bool("prolong", false, "let the family with this ID be refreshed for REFRESH_TOKEN_LIFETIME from now; the device needs no new pair")
	return func(c *call) error {
		if *end && *prolong {
			return usageError("-end and -prolong exclude each other")
		}
		if *prolong {
			id, err := c.oneArg("-prolong takes the ID of one family")
			if err != nil {
				return err
			}
			return c.tell(func(o *operate.Client, ctx context.Context) error { return o.ProlongFamily(ctx, id) },
				"The family is prolonged.")
		}
		if *end {
			id, err := c.oneArg("-end takes the ID of one family")
			if err != nil {
				return err
			}
			return c.tell(func(o *operate.Client, ctx context.Context) error { return o.EndFamily(ctx, id) },
				"The family is ended, and so are the sessions of its device.")
		}
		if err := c.noArgs(); err != nil {
			return err
		}
		return ask(c, (*operate.Client).Families,
			func(w io.Writer, all operate.Families) {
				writeTable(w, all.Families, "No device has a refresh token.", "ID\tDEVICE\tREFRESHES\tLAST\tENDS IF IDLE\tENDS", func(f operate.Family) []any {
					return []any{f.ID, f.Device, f.Refreshes, moment(f.RotatedAt), moment(f.ValidUntil), moment(f.EndsAt)}
				})
				if all.Unreadable != "" {
					fmt.Fprintln(w, "Other families cannot be read:", all.Unreadable)
				}
			})
	}
}

func setupRevoke(flags *flag.FlagSet) func(*call) error {
	var before time.Time
	flags.Func("before", "revoke only tokens issued before this `time`, like 2026-11-24T18:00:00Z (default now)", func(text string) (err error) {
		if before, err = time.Parse(time.RFC3339, text); err != nil {
			return usageError("it must be a time like 2026-11-24T18:00:00Z")
		}
		return nil
	})
	force := flags.Bool("force", false, "also if no such device is known")
	undo := flags.Bool("undo", false, "take the revocations of the device back; families of refresh tokens stay ended")
	return func(c *call) error {
		device, err := c.oneArg("name the device whose tokens you want to revoke")
		if err != nil {
			return err
		}
		if *undo {
			if *force || !before.IsZero() {
				return usageError("-undo takes back every revocation of the device: leave out -before and -force")
			}
			return c.tell(func(o *operate.Client, ctx context.Context) error { return o.Unrevoke(ctx, device) },
				"The revocations are taken back: tokens of the device that have not expired are valid again.")
		}
		return ask(c, func(o *operate.Client, ctx context.Context) (authority.Revoked, error) {
			return o.Revoke(ctx, device, before, *force)
		},
			func(w io.Writer, r authority.Revoked) {
				fmt.Fprintf(w, "Tokens of %s issued before %s are revoked: %d sessions and %d families of refresh tokens ended.\n",
					r.Device, moment(r.Before), r.Sessions, r.Families)
				if !r.Lasting {
					fmt.Fprintln(w, "Without AUTH_DIR, a restart of the server ends this revocation: change JWT_SECRET, or remove the device from ALLOWED_DEVICE_ID.")
				}
			})
	}
}

func setupKeys(flags *flag.FlagSet) func(*call) error {
	reload := flags.Bool("reload", false, "make the server read the secrets' files again, as SIGHUP does")
	return func(c *call) error {
		if err := c.noArgs(); err != nil {
			return err
		}
		if *reload {
			return c.tell((*operate.Client).Reload, "The secrets are read again.")
		}
		return ask(c, (*operate.Client).Keys,
			func(w io.Writer, list []operate.Key) {
				writeTable(w, list, "There are no keys.", "KEY\tACCEPTED TOKENS\tLAST", func(k operate.Key) []any {
					name, last := "previous", "never"
					if k.Signs {
						name = "current"
					}
					if k.Last != nil {
						last = moment(*k.Last)
					}
					return []any{name, k.Count, last}
				})
			})
	}
}
