package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/history"
)

// stream is a client of /events that reads what arrives.
type stream struct {
	t      *testing.T
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// event is a server-sent event. Comments and events without data are left out.
type event struct{ id, name, data string }

// events opens a stream, or returns the answer that refuses it.
func (s *testSite) events(query string, header ...string) (*stream, *http.Response) {
	s.t.Helper()
	return events(s.t, &http.Transport{}, "http://"+s.addr+"/events"+query, header...)
}

func events(t *testing.T, by *http.Transport, url string, header ...string) (*stream, *http.Response) {
	t.Helper()
	s, res, err := openEvents(t, by, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	return s, res
}

func openEvents(t *testing.T, by *http.Transport, url string, header ...string) (*stream, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := by.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { res.Body.Close(); by.CloseIdleConnections() })
	if res.StatusCode != http.StatusOK {
		return nil, res, nil
	}
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers %v", res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return &stream{t, lines, cancel}, res, nil
}

// next returns the next event, and false at the end of the stream.
func (s *stream) next() (e event, ok bool) {
	for s.lines.Scan() {
		field, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch {
		case field == "id":
			e.id = value
		case field == "event":
			e.name = value
		case field == "data":
			e.data = value
		case field == "" && e.data != "":
			return e, true
		}
	}
	return e, false
}

// texts returns the next n texts, and the id after them.
func (s *stream) texts(n int) (texts []string, id string) {
	s.t.Helper()
	for len(texts) < n {
		e, ok := s.next()
		if !ok {
			s.t.Fatalf("the stream has ended after %q", texts)
		}
		var frame struct {
			Pos      string
			Messages []struct{ Text string }
		}
		if err := json.Unmarshal([]byte(e.data), &frame); err != nil || frame.Pos != e.id {
			s.t.Fatalf("%+v: %v", e, err)
		}
		for _, m := range frame.Messages {
			texts = append(texts, m.Text)
		}
		id = e.id
	}
	return texts, id
}

// wants fails the test unless the next texts are the numbers from first on.
func (s *stream) wants(first, n int) (id string) {
	s.t.Helper()
	texts, id := s.texts(n)
	for i, text := range texts {
		if text != strconv.Itoa(first+i) {
			s.t.Fatalf("%q, want %d numbers from %d on", texts, n, first)
		}
	}
	return id
}

// A client of /events gets the frames that a socket gets. When it comes back,
// it gets what it has missed, and nothing twice.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := start(t, crowded)
	device, socket := s.publisher(), s.viewer()
	say := func(from, n int) {
		for i := range n {
			device.send("{\n\"text\":\r\n\"" + strconv.Itoa(from+i) + "\"}")
		}
		socket.texts(n)
	}
	say(0, 20)
	first, _ := s.events("")
	first.wants(0, 20)
	say(20, 20)
	id := first.wants(20, 20)
	first.cancel()
	say(40, 20)
	for _, row := range []struct {
		query string
		id    string
		from  int
		why   string
	}{
		{"", id, 40, "a browser that comes back"},
		{"?since=" + id, "", 40, "a page that comes back"},
		{"?since=x", id, 40, "a browser that comes back names a newer position than the page did"},
		{"?since=x", "", 0, "no position"},
		{"?last=7", "", 53, "the newest seven"},
		{"?last=1000", "", 0, "more than there are"},
		{"?last=-1", "", 0, "no number"},
		{"?last=7", id, 40, "a browser that comes back begins nowhere anew"},
		{"?watch=0", "", 0, "there is nothing else to do on a stream than to watch"},
	} {
		again, _ := s.events(row.query, "Last-Event-ID", row.id)
		again.wants(row.from, 60-row.from)
		again.cancel()
	}
	testkit.Eventually(t, "the streams are forgotten", func() bool { return s.srv.Relay.Len() == 2 && s.srv.Relay.Watching() == 2 })
}

// A stream has the rules of a socket: the same pages may open it, and both
// count as connections of their client.
func TestEventsAreAdmittedAsSockets(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) {
		trustLoopback(c)
		c.Production, c.Origins, c.RateConnections = true, []string{"https://art.example"}, 2
	})
	for _, row := range []struct {
		header []string
		want   int
		why    string
	}{
		{[]string{"Origin", "https://evil.example"}, 403, "a foreign page"},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403, "an image of a foreign page"},
		{[]string{"User-Agent", "Mozilla/5.0", "Accept", "*/*"}, 406, "a script element of any page, in an old browser"},
		{[]string{"Origin", "https://art.example", "Sec-Fetch-Site", "cross-site"}, 200, "a page of another origin that is allowed"},
		{[]string{"User-Agent", "Mozilla/5.0", "Accept", "text/event-stream"}, 200, "the site's own page, in an old browser"},
		{nil, 429, "the third connection"},
		{[]string{"Origin", "https://evil.example"}, 403, "a foreign page costs its visitor nothing"},
	} {
		if _, res := s.events("", append(from("192.0.2.1"), row.header...)...); res.StatusCode != row.want {
			t.Errorf("%s: %s", row.why, res.Status)
		} else if origin := res.Header.Get("Access-Control-Allow-Origin"); row.want == 200 && row.header != nil && row.header[0] == "Origin" && origin != row.header[1] {
			t.Errorf("%s: its scripts cannot read the events: %q", row.why, origin)
		}
	}
	if p, res := connect(t, s.addr, from("192.0.2.1")...); p != nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a socket beside two streams: %v", res.Status)
	}
	for _, method := range []string{"POST", "HEAD", "OPTIONS"} {
		if res, _ := s.do(method, "/events"); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET" {
			t.Errorf("%s: %s", method, res.Status)
		}
	}
	if code, out := s.verb("block", "192.0.2.1"); code != exitOK {
		t.Fatal(out)
	}
	testkit.Eventually(t, "the streams of a blocked address end", func() bool { return s.srv.Relay.Len() == 0 })
	if _, res := s.events("", from("192.0.2.1")...); res.StatusCode != http.StatusForbidden {
		t.Errorf("a blocked address: %s", res.Status)
	}
}

// A stream that the server ends says why, and when to come back.
func TestEventsGoodbye(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	stream, _ := s.events("")
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Watching() == 1 })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	e, _ := stream.next()
	var why struct {
		Code   int
		Reason string
	}
	if err := json.Unmarshal([]byte(e.data), &why); err != nil || e.name != "close" || why.Code != 1001 || !strings.HasPrefix(why.Reason, "retry=") {
		t.Errorf("%+v", e)
	}
	if _, more := stream.next(); more || stream.lines.Err() != nil {
		t.Errorf("the stream is not whole: %v", stream.lines.Err())
	}
}

// Viewers of a stream are held as others are.
func TestEventsAreHeld(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	device := s.publisher()
	stream, _ := s.events("")
	device.send(`{"text":"0"}`)
	stream.wants(0, 1)
	if code, out := s.verb("hold"); code != exitOK {
		t.Fatal(out)
	}
	device.send(`{"text":"a slip","id":"s"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "s" })
	entries := s.srv.History.Since(history.Oldest()).Entries
	if code, out := s.verb("erase", fmt.Sprint(entries[len(entries)-1].Seq)); code != exitOK {
		t.Fatal(out)
	}
	if code, out := s.verb("release"); code != exitOK {
		t.Fatal(out)
	}
	device.send(`{"text":"1"}`)
	for text := ""; text != "1"; {
		texts, _ := stream.texts(1) // the erasure shows the rest again
		if text = texts[len(texts)-1]; strings.Contains(strings.Join(texts, ""), "slip") {
			t.Fatal("what was held and erased is shown")
		}
	}
}

// A client that takes nothing is given up, and delays no one.
func TestEventsOfAStalledClient(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { c.WriteWait = time.Second })
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\n\r\n", s.addr)
	testkit.Eventually(t, "connected", func() bool { return s.srv.Relay.Watching() == 1 })
	device, other := s.publisher(), s.viewer()
	long := strings.Repeat("x", 15<<10)
	testkit.Eventually(t, "the stalled client is given up", func() bool {
		device.send(`{"text":"` + long + `"}`)
		other.texts(1)
		device.texts(1)
		return s.srv.Relay.Stats().Ended["too slow"] == 1
	})
}

// Over TLS, a browser gets the events in a stream of HTTP/2.
func TestEventsOverHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	srv := http.Server{Handler: s.srv.Handler, WriteTimeout: time.Minute, ReadTimeout: time.Minute}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetUnencryptedHTTP2(true)
	ln := loopback(t)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
	by := &http.Transport{Protocols: srv.Protocols}
	stream, res := events(t, by, "http://"+ln.Addr().String()+"/events")
	if res.ProtoMajor != 2 {
		t.Fatal(res.Proto)
	}
	device := s.publisher()
	for i := range 50 {
		device.send(`{"text":"` + strconv.Itoa(i) + `"}`)
		stream.wants(i, 1)
	}
	stream.cancel()
	testkit.Eventually(t, "the stream is forgotten", func() bool { return s.srv.Relay.Watching() == 1 })
}

// A stream outlasts the bounds of other answers, and says something meanwhile.
func TestEventsOutlastOtherAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *config.Config) { c.PingEvery = 20 * time.Millisecond })
	bound := 100 * time.Millisecond
	open := func() (*stream, error) {
		srv := http.Server{Handler: s.srv.Handler, WriteTimeout: bound, ReadTimeout: bound}
		ln := loopback(t)
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { srv.Close() })
		stream, _, err := openEvents(t, &http.Transport{}, "http://"+ln.Addr().String()+"/events")
		return stream, err
	}
	stream, err := open()
	for ; err != nil && bound < 10*time.Second; stream, err = open() {
		bound *= 2 // a slow machine took longer to begin
	}
	if err != nil {
		t.Fatal(err)
	}
	comments := 0
	for end := time.Now().Add(5 * bound); time.Now().Before(end) || comments < 10; {
		if !stream.lines.Scan() {
			t.Fatal("the stream has ended", stream.lines.Err())
		}
		if stream.lines.Text() == ":" {
			comments++
		}
	}
	s.publisher().send(`{"text":"0"}`)
	stream.wants(0, 1)
}

// A person can read the events with curl.
func TestEventsWithCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		testkit.Missing(t, "curl is missing: install curl")
	}
	s := start(t, nil)
	device := s.publisher()
	device.send(`{"text":"hello","id":"1"}`)
	device.await(func(m map[string]any) bool { return m["ack"] == "1" })
	cmd := exec.CommandContext(t.Context(), curl, "-sN", "http://"+s.addr+"/events")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stream := &stream{t: t, lines: bufio.NewScanner(out)}
	if texts, _ := stream.texts(1); texts[0] != "hello" {
		t.Errorf("%q", texts)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
