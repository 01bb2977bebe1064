package client_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// network answers the requests of a client without a network.
type network func(*http.Request) *http.Response

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	res := n(r)
	res.Body, res.Request = io.NopCloser(strings.NewReader("")), r
	if res.Header == nil {
		res.Header = http.Header{}
	}
	return res, nil
}

func TestRedirects(t *testing.T) {
	for _, row := range []struct {
		from, to string
		follows  bool
		why      string
	}{
		{"https://a.example/ws", "/ws/", true, "the same place"},
		{"https://a.example/ws", "https://a.example:443/x", true, "with the port written out"},
		{"http://a.example:80/ws", "http://a.example/x", true, "or left out"},
		{"https://a.example/ws", "http://a.example/ws", false, "in the clear"},
		{"http://a.example/ws", "https://a.example/ws", false, "another scheme is another server"},
		{"https://a.example/ws", "https://a.example:8443/ws", false, "another port"},
		{"https://a.example/ws", "https://b.example/ws", false, "another host"},
		{"https://a.example/ws", "https://sub.a.example/ws", false, "a host below it, which net/http trusts"},
		{"https://sub.a.example/ws", "https://a.example/ws", false, "and above it"},
		{"https://a.example/ws", "//b.example/ws", false, "without a scheme"},
		{"https://a.example/ws", "https://u:p@a.example/ws", false, "with a name and a password of the server's choice"},
		{"http://127.0.0.1:3000/ws", "http://localhost:3000/ws", false, "the same machine, but not the same name"},
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			asked := 0
			c := client.New(&http.Client{Transport: network(func(*http.Request) *http.Response {
				if asked++; asked == 1 {
					return &http.Response{StatusCode: status, Header: http.Header{"Location": {row.to}}}
				}
				return &http.Response{StatusCode: 200}
			})})
			req, err := http.NewRequest(http.MethodPost, row.from, strings.NewReader("secret"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 200, false: status}[row.follows]; res.StatusCode != want || (asked == 2) != row.follows {
				t.Errorf("%s: %d from %s to %s: got %d after %d requests, want %d", row.why, status, row.from, row.to, res.StatusCode, asked, want)
			}
		}
	}
}

// A second redirect is compared with the first URL, and there is an end.
func TestChains(t *testing.T) {
	asked := 0
	c := client.New(&http.Client{Transport: network(func(r *http.Request) *http.Response {
		if r.URL.Host != "a.example" {
			t.Errorf("asked %s", r.URL)
		}
		to := "/again"
		if asked++; r.URL.Path == "/leave" && asked > 2 {
			to = "http://b.example/"
		}
		return &http.Response{StatusCode: 307, Header: http.Header{"Location": {to}}}
	})})
	for _, path := range []string{"/stay", "/leave"} {
		asked = 0
		res, err := c.Get("http://a.example" + path)
		if err != nil || res.StatusCode != 307 || asked > 6 {
			t.Errorf("%s: %v after %d requests", path, err, asked)
		}
	}
}

// The client that New gets keeps its own policy.
func TestNewCopies(t *testing.T) {
	base := &http.Client{}
	if c := client.New(base); c == base || base.CheckRedirect != nil {
		t.Error("the client of the caller was changed")
	}
	if client.New(nil).CheckRedirect == nil {
		t.Error("no policy")
	}
}
