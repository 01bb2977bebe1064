// Package doctor looks at a running relay from outside and says, line by line,
// what of the security guide's production checklists it keeps.
//
// It opens few connections, one after the other, and publishes nothing. What it
// sends would not harm a server that has nothing wrong: requests for pages,
// three tokens that no server accepts, one message that is too large. It needs
// nothing but the protocol, so it works against any server that speaks it.
// Nothing that the server answers, or fails to answer, makes it wait or read
// without a bound.
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

// ErrUnreachable says that the server gave no answer at all, so that there is
// nothing to report.
var ErrUnreachable = errors.New("the server is not reachable")

// Config says what is looked at. Only URL is required.
type Config struct {
	// URL is the page's address, http or https. The WebSocket is ws beside it.
	URL string
	// Token, where there is one, is shown to the server: it must be accepted,
	// or refused like any other where it has expired. It is shown only over TLS
	// with a good certificate.
	Token string
	// ForeignOrigin is the origin that must be refused; default
	// https://evil.example.
	ForeignOrigin string
	// SkipRateLimit leaves out the lines that use up this address's
	// connections.
	SkipRateLimit bool

	// Timeout bounds every single step; default 10 seconds. All together are
	// bounded by Total; default 3 minutes.
	Timeout, Total time.Duration
	// Roots verify the certificate; nil: the system's.
	Roots *x509.CertPool
	// Dial opens connections; nil: the network. It is for tests.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Outcome is how one item of the checklist fared.
type Outcome string

// Outcomes.
const (
	OK      Outcome = "ok"
	Warn    Outcome = "warn"    // works, and could be better
	Fail    Outcome = "fail"    // is not as the guide asks
	Manual  Outcome = "manual"  // not visible from outside; Mend says where to look
	Skipped Outcome = "skipped" // not looked at; Seen says why
)

// Item is one line of a report. The names of its fields in JSON, and the IDs,
// stay what they are.
type Item struct {
	ID        string  `json:"id"`
	Checklist string  `json:"checklist"` // "pre-deployment" or "post-deployment"
	Point     string  `json:"point"`     // what the guide asks
	Outcome   Outcome `json:"outcome"`
	Seen      string  `json:"seen"`
	Mend      string  `json:"mend,omitempty"` // for all but ok
}

// Report is what was found, in the order of the checklists.
type Report struct {
	URL   string          `json:"url"`
	Items []Item          `json:"items"`
	Count map[Outcome]int `json:"count"`
}

// Failed reports whether any item failed.
func (r Report) Failed() bool { return r.Count[Fail] > 0 }

// ParseURL reads the address of a page as Config.URL may hold it.
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

// Run looks at the server. Its error is of the configuration, or
// [ErrUnreachable]; whatever else goes wrong is in the report.
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

	trusted bool        // the certificate is good
	hsts    bool        // some answer carried it
	foreign int         // status that a foreign origin was answered with
	near    atomic.Bool // the server is on this machine or this network
	answers []labelled  // all that are held to the rules for every answer
}

// labelled is an answer with the name that reports call it by.
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

// judge notes the problems that were found, or else that all is well.
func (p *probe) judge(id string, problems []string, format string, args ...any) {
	if len(problems) > 0 {
		p.note(id, Fail, "%s", strings.Join(problems, "; "))
		return
	}
	p.note(id, OK, format, args...)
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

// origin is the site's own, as browsers send it.
func (p *probe) origin() string { return p.url.Scheme + "://" + p.url.Host }

// dial remembers whether the server is so near that it may take this machine
// for its proxy, or that no firewall is between.
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

// insecureTLS connects to whoever answers. The certificate has a line of its
// own, and what is found behind a bad one is worth knowing too; nothing secret
// is sent.
func (p *probe) insecureTLS() *tls.Config {
	return &tls.Config{ServerName: p.host(), InsecureSkipVerify: true}
}

// clean makes a text of one harmless line: a hostile server's words must not
// steer a terminal.
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

// quote is a value that a server sent, short enough for a line.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// said is what a server answered, for a line of its own: JSON in quotes is hard
// to read.
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

// plainError is err without the addresses and operations around its cause.
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
