//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// dialWait limits the time to connect and to get an answer from the server.
const dialWait = 30 * time.Second

// refusal is the answer to a handshake with a status other than 101.
type refusal struct {
	status int
	retry  string // the Retry-After header
}

func (r *refusal) Error() string {
	s := fmt.Sprintf("the server refused the connection: %d %s", r.status, http.StatusText(r.status))
	if r.retry != "" {
		s += "; try again after " + r.retry + " s"
	}
	return s
}

// target is the server of a valid URL.
type target struct {
	addr   string      // host:port
	host   string      // the host as in the URL
	path   string      // with the query
	tls    *tls.Config // nil for ws
	socket string      // the path of a Unix socket to dial instead of addr, or ""

	deflate bool // offer compression
	events  bool // ask for server-sent events
}

// parseTarget parses a ws:// URL, or a wss:// URL with the file of the
// authority that has issued the server's certificate. It refuses wss:// without
// that, because a proxy usually terminates TLS, and the measurement would
// include the proxy. Without remote, the host must be this machine.
func parseTarget(raw, ca string, remote bool) (target, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "ws" && (u.Scheme != "wss" || ca == "") || u.Host == "" {
		return target{}, fmt.Errorf("-url must be like ws://127.0.0.1:3000/ws, or with -ca like wss://127.0.0.1:3000/ws, not %q", raw)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	to := target{addr: net.JoinHostPort(u.Hostname(), port), host: u.Host, path: u.RequestURI()}
	if u.Scheme == "wss" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return target{}, fmt.Errorf("-ca: %w", err)
		}
		to.tls = &tls.Config{ServerName: u.Hostname(), RootCAs: x509.NewCertPool()}
		if !to.tls.RootCAs.AppendCertsFromPEM(text) {
			return target{}, errors.New("-ca: the file has no certificate in PEM")
		}
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if local := u.Hostname() == "localhost" || err == nil && ip.IsLoopback(); !local && !remote {
		return target{}, fmt.Errorf("%s is not this machine: use -remote if it is a server of your own", u.Hostname())
	}
	return to, nil
}

// since returns the target at which a viewer goes on from a position. If pos is
// empty, the viewer begins anew.
func (t target) since(pos string) target {
	if pos == "" {
		return t
	}
	sep := "?"
	if strings.Contains(t.path, "?") {
		sep = "&"
	}
	t.path += sep + "since=" + url.QueryEscape(pos)
	return t
}

// source returns one of n loopback addresses, from 127.0.1.1 on, or nil if n is
// 0. The viewers i and i+n have the same address.
func source(i, n int) net.Addr {
	if n == 0 {
		return nil
	}
	first := binary.BigEndian.Uint32([]byte{127, 0, 1, 1})
	return &net.TCPAddr{IP: binary.BigEndian.AppendUint32(nil, first+uint32(i%n))}
}

// smallWindow is the receive buffer of a slow viewer, in bytes. With the usual
// buffer the kernel would accept megabytes, and the server would not notice
// that the viewer is slow.
const smallWindow = 4096

// dialled is an open WebSocket, or a stream of events.
type dialled struct {
	net.Conn
	rest    []byte // what the server sent directly after its answer
	deflate bool   // the server may compress messages
	events  bool   // it sends events, and not frames
}

// dial opens a connection from the address from, if it is not nil. On a Unix
// socket, it sends that address as a proxy does.
func dial(ctx context.Context, to target, from net.Addr, slow bool) (*dialled, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	network, addr, forwarded := "tcp", to.addr, ""
	if to.socket != "" {
		network, addr, forwarded = "unix", to.socket, "127.0.0.1"
		if at, ok := from.(*net.TCPAddr); ok {
			forwarded = at.IP.String()
		}
	} else {
		d.LocalAddr = from
	}
	if slow {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, smallWindow)
			})
			return errors.Join(cerr, err)
		}
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if to.tls != nil {
		conn = tls.Client(conn, to.tls)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	c := &dialled{Conn: conn}
	if to.events {
		err = c.request(to, forwarded)
	} else {
		err = c.upgrade(to, forwarded)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// upgrade does the opening handshake (RFC 6455, section 4). forwarded is the
// address of the viewer that a proxy would send, or "".
func (c *dialled) upgrade(to target, forwarded string) error {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := "GET " + to.path + " HTTP/1.1\r\nHost: " + to.host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n"
	if forwarded != "" {
		req += "X-Forwarded-For: " + forwarded + "\r\n"
	}
	if to.deflate {
		req += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	res, err := c.ask(req, http.StatusSwitchingProtocols)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if res.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return errors.New("the answer to the handshake does not fit the request: this is not a WebSocket server, or a cache answered")
	}
	if to.deflate {
		c.deflate, err = agreed(res.Header["Sec-Websocket-Extensions"])
	}
	return err
}

// request asks for events; forwarded is as in upgrade.
func (c *dialled) request(to target, forwarded string) error {
	req := "GET " + to.path + " HTTP/1.1\r\nHost: " + to.host + "\r\nAccept: text/event-stream\r\n"
	if forwarded != "" {
		req += "X-Forwarded-For: " + forwarded + "\r\n"
	}
	res, err := c.ask(req, http.StatusOK)
	if err != nil {
		return err
	}
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" || len(res.TransferEncoding) != 1 {
		return fmt.Errorf("the answer is %q and not a stream of events in chunks: check the path of -url", kind)
	}
	c.events = true
	return nil
}

// ask sends the head of a request without its empty line, reads the head of the
// answer, and keeps what came after that.
func (c *dialled) ask(head string, want int) (*http.Response, error) {
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return nil, err
	}
	r := readers.Get().(*bufio.Reader)
	r.Reset(c)
	defer func() { r.Reset(nil); readers.Put(r) }()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to the handshake: %w", err)
	}
	if res.StatusCode != want {
		return nil, &refusal{res.StatusCode, res.Header.Get("Retry-After")}
	}
	c.rest = make([]byte, r.Buffered())
	_, err = io.ReadFull(r, c.rest)
	return res, err
}

// refusedAs returns a short name for the cause of err. Connections that failed
// for the same cause are counted under one name.
func refusedAs(err error) string {
	var r *refusal
	var ne net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &r):
		return strconv.Itoa(r.status)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "too many open files"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no free port or address"
	case errors.As(err, &ne) && ne.Timeout():
		return "no answer"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return "connection cut"
	case errors.As(err, &errno):
		return errno.Error() // the whole text has addresses, which differ
	}
	return err.Error()
}

// advice returns what the operator can do about a cause of refusedAs, or "".
func advice(why string) string {
	switch why {
	case "429":
		return "the server's limit for one client: raise RATE_LIMIT_CONNECTIONS, or spread the viewers with -sources; after an earlier run wait for RATE_LIMIT_WINDOW; for -ramp above its UPGRADES_PER_SECOND, set that to 0"
	case "403":
		return "the server blocks these addresses: restart it, or wait"
	case "404", "426":
		return "no WebSocket there: check the path of -url"
	case "nothing listens":
		return "start the server, or check -url"
	case "too many open files":
		return "raise the limit with `ulimit -n`, for the server too"
	case "no free port or address":
		return "raise -sources; other systems than Linux need each of 127.0.1.1… configured on the loopback interface"
	case "no answer", "connection cut":
		return "the server cannot accept so many at once: lower -ramp, or raise its `ulimit -n` and net.core.somaxconn"
	case "503":
		return "the server is stopping, or has as many connections as MAX_CONNECTIONS: raise that"
	}
	if strings.Contains(why, "invalid argument") || strings.Contains(why, "assign") {
		return "-sources works for a server on 127.0.0.1 only; -sources 0 leaves the address to the system"
	}
	return ""
}
