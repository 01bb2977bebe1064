package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// Bounds on one call: the time for a short answer, the time until a long answer
// begins, and the size of a short answer.
const (
	callWait   = 10 * time.Second
	headerWait = time.Minute
	maxAnswer  = 16 << 20 // bytes
)

// ErrNoAddr means that a [Client] has no address to call.
var ErrNoAddr = errors.New("OPERATOR_ADDR is empty, so the server takes no calls")

var errForeign = errors.New("the answer is not this server's JSON")

// Client calls the operator's listener of a running server. It has a method for
// each call of [Handler], in the same file as the call's handler.
type Client struct {
	Addr    string        // host:port or unix:PATH; if empty, every call returns ErrNoAddr
	Secrets []jwtauth.Key // the secrets that the server may have; unused on a Unix socket
	Room    string        // for the calls about the history and for Lives; empty if the server has no rooms
}

// ask makes one call. A status other than 2xx is an error. The caller must
// close the answer's body.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	if c.Addr == "" {
		return nil, ErrNoAddr
	}
	transport, token, err := c.transport(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://operator"+path, body)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := transport.RoundTrip(req) // no proxy, no redirects
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("the server answered %s: %s", res.Status, terminal.Line(strings.TrimSpace(string(text))))
	}
	return res, nil
}

func (c *Client) token(key jwtauth.Key) (string, error) {
	return authority.OperatorToken([]jwtauth.Key{key}, time.Now())
}

// do makes a call whose answer has no content.
func (c *Client) do(ctx context.Context, method, path string) error {
	res, err := c.ask(ctx, method, path, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// get makes a call whose answer is short, and decodes the answer.
func get[T any](ctx context.Context, c *Client, method, path string) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	res, err := c.ask(ctx, method, path, nil)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil && json.Unmarshal(text, &answer) != nil {
		err = errForeign
	}
	return answer, err
}
