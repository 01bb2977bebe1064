// Package logcheck tests a service that takes logs and shows them live, by a
// real HTTP client. The service of the examples and the one that is written
// with another library pass the same test.
package logcheck

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// Logs is how many logs the service takes.
const Logs = 500

type checker struct {
	*testing.T
	server *httptest.Server
}

// Run tests the service behind handler.
func Run(t *testing.T, handler http.Handler) {
	c := checker{t, httptest.NewServer(handler)}
	defer c.server.Close()
	c.live()
	c.refusals()
	c.stalled()
	c.many()
}

func (c checker) do(by *http.Client, method, path, id string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequest(method, c.server.URL+path, body)
	if err != nil {
		return nil, err
	}
	if id != "" {
		req.Header.Set("Last-Event-ID", id)
	}
	resp, err := by.Do(req)
	if err == nil {
		c.Cleanup(func() { resp.Body.Close() })
	}
	return resp, err
}

// status makes a request, whose answer must have this status.
func (c checker) status(want int, method, path, id string, body io.Reader) {
	c.Helper()
	resp, err := c.do(c.server.Client(), method, path, id, body)
	if err != nil {
		c.Error(err)
		return
	}
	if resp.StatusCode != want {
		c.Errorf("%s %s: %s, want %d", method, path, resp.Status, want)
	}
	resp.Body.Close()
}

func (c checker) write(name, text string) {
	c.Helper()
	c.status(204, "POST", "/logs/"+name, "", strings.NewReader(text))
}

// follower reads a stream of events.
type follower struct {
	checker
	body  io.Closer
	lines *bufio.Scanner
	id    string
}

func (c checker) follow(name, id string) *follower {
	c.Helper()
	f, err := c.tryFollow(c.server.Client(), name, id)
	if err != nil {
		c.Fatal(err)
	}
	return f
}

func (c checker) tryFollow(by *http.Client, name, id string) (*follower, error) {
	resp, err := c.do(by, "GET", "/logs/"+name, id, nil)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != 200, resp.Header.Get("Content-Type") != "text/event-stream", resp.Header.Get("Cache-Control") != "no-store":
		return nil, fmt.Errorf("%s: %s, %v", name, resp.Status, resp.Header)
	}
	return &follower{checker: c, body: resp.Body, lines: bufio.NewScanner(resp.Body)}, nil
}

// next returns the name and the data of the next event, or "EOF".
func (f *follower) next() (event, data string) {
	found := false
	for f.lines.Scan() {
		field, value, _ := strings.Cut(f.lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case f.lines.Text() == "" && found:
			return event, data
		case field == "id":
			f.id = value
		case field == "event":
			event = value
		case field == "data":
			data, found = data+value, true
		}
	}
	return "EOF", ""
}

// want reads the next events, which must have these data and no name. A last
// one that is ended must be the end.
func (f *follower) want(ended bool, all ...string) error {
	for _, w := range all {
		if event, data := f.next(); event != "" || data != w {
			return fmt.Errorf("got event %q, %q, want %q", event, data, w)
		}
	}
	if !ended {
		return nil
	}
	if event, data := f.next(); event != "end" {
		return fmt.Errorf("got event %q, %q, want the end", event, data)
	}
	if event, data := f.next(); event != "EOF" {
		return fmt.Errorf("after the end: event %q, %q", event, data)
	}
	return nil
}

func (f *follower) expect(all ...string) {
	f.Helper()
	if err := f.want(false, all...); err != nil {
		f.Fatal(err)
	}
}

func (f *follower) expectEnd(all ...string) {
	f.Helper()
	if err := f.want(true, all...); err != nil {
		f.Fatal(err)
	}
}

// live follows a log while it is written, over a lost connection, to its end.
func (c checker) live() {
	c.status(404, "GET", "/logs/build-7", "", nil)
	body, writer := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write("build-7", "first\n")
		c.status(204, "POST", "/logs/build-7", "", body)
	}()
	write := func(text string) { io.WriteString(writer, text) }
	write("one\ntwo: data\n\n")
	f := c.follow("build-7", "")
	f.expect("first", "one", "two: data", "")
	write("three\n")
	f.expect("three")
	f.body.Close()

	write("four\nfi")
	again := c.follow("build-7", f.id)
	again.expect("four")
	write("ve\nsix")
	again.expect("five")
	writer.Close() // the last line has no end
	again.expect("six")
	<-written
	c.status(204, "POST", "/logs/build-7/end", "", nil)
	again.expectEnd()

	whole := c.follow("build-7", "")
	whole.expectEnd("first", "one", "two: data", "", "three", "four", "five", "six")
	c.status(204, "GET", "/logs/build-7", whole.id, nil) // a browser stops
	c.status(409, "POST", "/logs/build-7", "", strings.NewReader("seven\n"))
}

func (c checker) refusals() {
	c.status(404, "POST", "/logs/none/end", "", nil)
	c.status(404, "GET", "/logs/none", "", nil)
	c.status(400, "GET", "/logs/a%20b", "", nil)
	c.status(400, "POST", "/logs/a%20b", "", strings.NewReader("x\n"))
	c.status(413, "POST", "/logs/long", "", strings.NewReader(strings.Repeat("x", 100_000)))
	req, _ := http.NewRequest("POST", c.server.URL+"/logs/foreign", strings.NewReader("x\n"))
	req.Header.Set("Sec-Fetch-Site", "cross-site") // a page of another site
	if resp, err := c.server.Client().Do(req); err != nil || resp.StatusCode != 403 {
		c.Errorf("from another site: %v, %v", resp, err)
	}
}

// stalled has a follower that takes nothing, while another one follows.
func (c checker) stalled() {
	c.write("loud", "begin\n")
	small := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		return conn, err
	}}
	defer small.CloseIdleConnections()
	stuck, err := c.tryFollow(client.New(&http.Client{Transport: small}), "loud", "")
	if err != nil {
		c.Fatal(err)
	}
	defer stuck.body.Close()
	f := c.follow("loud", "")
	f.expect("begin")
	line := strings.Repeat("x", 60<<10)
	for i := range 150 { // more than the buffers of both ends
		text := fmt.Sprint(i, " ", line)
		c.write("loud", text+"\n")
		f.expect(text)
	}
	f.body.Close()
}

// many writes and follows as many logs as there may be, all at once.
func (c checker) many() {
	var wg sync.WaitGroup
	for i := range Logs - 3 { // build-7, long and loud are there
		wg.Go(func() {
			name := fmt.Sprint("many-", i)
			c.write(name, "0\n1\n")
			f, err := c.tryFollow(c.server.Client(), name, "")
			if err == nil {
				err = f.want(false, "0", "1")
			}
			if err == nil {
				c.write(name, "2\n3\n")
				err = f.want(false, "2", "3")
			}
			if err == nil {
				c.status(204, "POST", "/logs/"+name+"/end", "", nil)
				err = f.want(true)
			}
			if err != nil {
				c.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	c.status(507, "POST", "/logs/one-more", "", strings.NewReader("x\n"))
}
