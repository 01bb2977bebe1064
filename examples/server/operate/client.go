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
	Addr  string                 // host:port; if empty, every call returns ErrNoAddr
	Token func() (string, error) // makes the token of one call
}

// ask makes one call. A status other than 2xx is an error. The caller must
// close the answer's body.
func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	if c.Addr == "" {
		return nil, ErrNoAddr
	}
	token, err := c.Token()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addr+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// No proxy: the token is for the server alone.
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: headerWait}}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (is the server running, with the same OPERATOR_ADDR?)", err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, fmt.Errorf("the server answered %s: %s", res.Status, terminal.Line(strings.TrimSpace(string(text))))
	}
	return res, nil
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
