package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Limits of one answer, in bytes.
const (
	maxHeader = 64 << 10
	maxBody   = 256 << 10
)

// answer is an HTTP answer, or the error that came instead. The body is cut at
// maxBody.
type answer struct {
	status int
	proto  int // major version
	header http.Header
	body   string
	err    error
}

// get requests path, relative to the page.
func (p *probe) get(path string) answer { return p.do(http.MethodGet, path) }

func (p *probe) do(method, path string) answer {
	// JoinPath would resolve the dots in path.
	u, err := url.Parse(p.url.String() + path)
	if err != nil {
		return answer{err: err}
	}
	return p.roundTrip(&http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{"User-Agent": {"relay-doctor"}}})
}

// roundTrip sends req. It follows no redirect.
func (p *probe) roundTrip(req *http.Request) answer {
	ctx, cancel := context.WithTimeout(p.ctx, p.Timeout)
	defer cancel()
	res, err := p.http.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return answer{err: err}
	}
	return read(res)
}

func read(res *http.Response) answer {
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return answer{status: res.StatusCode, proto: res.ProtoMajor, header: res.Header, body: string(body), err: err}
}

// within returns the deadline of a step that may take d, which is never after
// the end of the run.
func (p *probe) within(d time.Duration) time.Time {
	deadline := time.Now().Add(d)
	if total, ok := p.ctx.Deadline(); ok && total.Before(deadline) {
		return total
	}
	return deadline
}

// connect opens a connection for HTTP/1.1 without net/http, over TLS as in cfg
// unless the address is plain http. Reads and writes on it fail after
// p.Timeout.
func (p *probe) connect(cfg *tls.Config) (net.Conn, error) {
	conn, err := p.dial(p.ctx, "tcp", net.JoinHostPort(p.host(), p.port()))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(p.within(p.Timeout))
	if !p.secure() {
		return conn, nil
	}
	cfg.NextProtos = []string{"http/1.1"}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(p.ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// raw sends a request that net/http would refuse to send.
func (p *probe) raw(request string) answer {
	conn, err := p.connect(p.insecureTLS())
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return answer{err: err}
	}
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeader+maxBody)), nil)
	if err != nil {
		return answer{err: err}
	}
	return read(res)
}
