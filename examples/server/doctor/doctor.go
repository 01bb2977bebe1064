// Package doctor checks a running relay from outside. Its report has a line for
// each point of the security guide's production checklists.
//
// The doctor opens few connections, one after the other, and publishes nothing.
// It sends requests for pages, three tokens that no server accepts, and one
// message that is too large. None of them harms a correct server. The doctor
// depends on the protocol only, so it works against any server that speaks it.
// Every wait and every read has a bound, whatever the server answers.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// ErrUnreachable is the error of [Run] if the server did not answer the first
// request. There is no report then.
var ErrUnreachable = errors.New("the server is not reachable")

// Config is the server to check, and how. Only URL is required.
type Config struct {
	// URL is the page's address, http or https. The WebSocket's address is "ws"
	// relative to it.
	URL string
	// Room is the room whose WebSocket is checked, if the server has rooms. URL
	// is then that of the list.
	Room string
	// Token is sent to the server if it is not empty. The server must accept
	// it, or refuse it if it has expired. It is sent only over TLS with a valid
	// certificate.
	Token string
	// ForeignOrigin is the origin that the server must refuse; default
	// https://evil.example.
	ForeignOrigin string
	// SkipRateLimit skips the checks that use up this address's connections.
	SkipRateLimit bool

	// Timeout limits each step; default 10 seconds. Total limits the whole run;
	// default 3 minutes.
	Timeout, Total time.Duration
	// Roots verify the certificate. If nil, the system's roots do.
	Roots *x509.CertPool
	// Dial opens connections. If nil, a [net.Dialer] does. It is for tests.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Outcome is the result of one item.
type Outcome string

// Outcomes.
const (
	OK      Outcome = "ok"
	Warn    Outcome = "warn"    // works, but could be better
	Fail    Outcome = "fail"    // does not do what the guide asks
	Manual  Outcome = "manual"  // not visible from outside; Mend names the place to look
	Skipped Outcome = "skipped" // not checked; Seen has the reason
)

// Item is one line of a report. The names of its fields in JSON, and the IDs,
// are stable.
type Item struct {
	ID        string  `json:"id"`
	Checklist string  `json:"checklist"` // "pre-deployment" or "post-deployment"
	Point     string  `json:"point"`     // what the guide asks
	Outcome   Outcome `json:"outcome"`
	Seen      string  `json:"seen"`
	Mend      string  `json:"mend,omitempty"` // how to fix it; empty if the outcome is ok
}

// Report is the result of a run, in the order of the checklists.
type Report struct {
	URL   string          `json:"url"`
	Items []Item          `json:"items"`
	Count map[Outcome]int `json:"count"`
}

// Failed reports whether any item failed.
func (r Report) Failed() bool { return r.Count[Fail] > 0 }

// ParseURL parses and checks a value for Config.URL. The path of the result
// ends with a slash.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("the address must be like https://art.example/")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the address must have no user, query or fragment")
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u, nil
}

// Run checks the server. It returns an error if the URL is wrong, or
// [ErrUnreachable]. All other problems are in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return Report{}, err
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Total <= 0 {
		cfg.Total = 3 * time.Minute
	}
	if cfg.ForeignOrigin == "" {
		cfg.ForeignOrigin = "https://evil.example"
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Total)
	defer cancel()
	p := &probe{Config: cfg, ctx: ctx, url: u, found: map[string]finding{}}
	p.http = &http.Transport{
		DialContext:            p.dial,
		TLSClientConfig:        p.insecureTLS(),
		TLSHandshakeTimeout:    cfg.Timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	defer p.http.CloseIdleConnections()

	page := p.get("")
	if page.err != nil {
		return Report{}, fmt.Errorf("%w: %s", ErrUnreachable, clean(plainError(page.err)))
	}
	p.checkTLS(page)
	p.checkPages(page)
	p.checkPorts()
	p.checkSocket()
	p.checkProduction()
	return p.report(), nil
}

// probe is one run.
type probe struct {
	Config
	ctx   context.Context
	url   *url.URL
	http  *http.Transport
	found map[string]finding

	trusted bool        // the certificate is valid
	hsts    bool        // an answer had a valid Strict-Transport-Security
	foreign int         // the status of the answer to a foreign origin
	near    atomic.Bool // the server is on this machine or this network
	answers []labelled  // the answers that checkAll judges
}

// labelled is an answer with its name in reports.
type labelled struct {
	name string
	answer
}

type finding struct {
	outcome Outcome
	seen    string
}

func (p *probe) note(id string, outcome Outcome, format string, args ...any) {
	p.found[id] = finding{outcome, clean(fmt.Sprintf(format, args...))}
}

// judge notes a failure with the problems. If there are none, it notes OK with
// the formatted text.
func (p *probe) judge(id string, problems []string, format string, args ...any) {
	if len(problems) > 0 {
		p.note(id, Fail, "%s", strings.Join(problems, "; "))
		return
	}
	p.note(id, OK, format, args...)
}

// pause waits, unless the whole run ends before.
func (p *probe) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.ctx.Done():
	}
}

// socket is the path of the WebSocket, relative to the page.
func (p *probe) socket() string {
	if p.Room == "" {
		return "ws"
	}
	return "ws?room=" + url.QueryEscape(p.Room)
}

func (p *probe) secure() bool { return p.url.Scheme == "https" }

func (p *probe) port() string {
	if port := p.url.Port(); port != "" {
		return port
	}
	if p.secure() {
		return "443"
	}
	return "80"
}

func (p *probe) host() string { return p.url.Hostname() }

// origin is the site's own origin, in the form that browsers send.
func (p *probe) origin() string { return p.url.Scheme + "://" + p.url.Host }

// dial opens a connection. It sets p.near if the server's address is a loopback
// or private one: such a server may take this machine for its proxy, and there
// may be no firewall in between.
func (p *probe) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	conn, err := p.Dial(ctx, network, addr)
	if err == nil {
		if at, ok := conn.RemoteAddr().(*net.TCPAddr); ok && (at.IP.IsLoopback() || at.IP.IsPrivate()) {
			p.near.Store(true)
		}
	}
	return conn, err
}

// insecureTLS returns a configuration that accepts every certificate.
// checkCertificate checks the certificate, and the other checks are useful even
// if it is invalid. No secret may be sent over such a connection: the next one
// may show another certificate. See strictTLS.
func (p *probe) insecureTLS() *tls.Config {
	return &tls.Config{ServerName: p.host(), InsecureSkipVerify: true}
}

// strictTLS returns a configuration for a connection that carries Config.Token.
// Such a connection verifies its own certificate, before a byte is sent.
func (p *probe) strictTLS() *tls.Config {
	return &tls.Config{ServerName: p.host(), RootCAs: p.Roots}
}

// clean replaces all characters that cannot be printed and shortens s, so that
// a hostile server's text cannot control a terminal.
func clean(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// quote quotes a value that a server sent, and shortens it to fit in a line.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// said shortens a server's answer for a line of the report. It adds no quotes,
// because JSON in quotes is hard to read.
func said(s string) string {
	const most = 80
	switch {
	case s == "":
		return "with nothing"
	case len(s) > most:
		return s[:most] + "…"
	}
	return s
}

// plainError returns the text of err without addresses and operations.
func plainError(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return "no address is found for the name"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
