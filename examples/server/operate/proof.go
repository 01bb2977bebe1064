package operate

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/relayguard/relayguard/examples/server/authority"
	"github.com/relayguard/relayguard/examples/server/socket"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// maxProof bounds the answer to a request for a proof, in bytes.
const maxProof = 4 << 10

// handleProof lets the server prove that it has the secret, before a client
// sends a token to it: any program can listen on a port that the server has
// left. The proofs, one for each key, are HMACs over the client's nonce and the
// address that the client has reached. The address keeps a program on another
// port from passing the request on to the server.
func (c *Config) handleProof(w http.ResponseWriter, r *http.Request) {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	nonce := r.URL.Query().Get("nonce")
	if addr == nil || len(nonce) < 26 || len(nonce) > 128 {
		http.Error(w, "nonce must be 26 to 128 characters", http.StatusBadRequest)
		return
	}
	answer(w, c.Authority.Proofs(nonce, addr.String()))
}

// prove asks the server at the other end of conn for a proof, and returns the
// key that it has proved to have.
func (c *Client) prove(ctx context.Context, conn net.Conn) (jwtauth.Key, error) {
	nonce := rand.Text()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://operator/proof?nonce="+url.QueryEscape(nonce), nil)
	if err != nil {
		return jwtauth.Key{}, err
	}
	if err := req.Write(conn); err != nil {
		return jwtauth.Key{}, err
	}
	// Nothing follows the answer before the next request, so the reader's
	// buffer is empty in the end.
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxProof)), req)
	if err != nil {
		return jwtauth.Key{}, errUnproved
	}
	defer res.Body.Close()
	var proofs []string
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&proofs) != nil {
		return jwtauth.Key{}, errUnproved
	}
	_, _ = io.Copy(io.Discard, res.Body)
	for _, key := range c.Secrets {
		if authority.Proved(key, proofs, nonce, conn.RemoteAddr().String()) {
			return key, nil
		}
	}
	return jwtauth.Key{}, errUnproved
}

var errUnproved = errors.New("the program at OPERATOR_ADDR did not prove that it is the server with this JWT_SECRET, so no token was sent to it " +
	"(after a change of JWT_SECRET, have the server reload it, or set JWT_SECRET_PREVIOUS)")

var errNoSecret = errors.New("without JWT_SECRET, this command cannot tell the server from another program at OPERATOR_ADDR: " +
	"use a Unix socket, such as unix:/run/relay/operator.sock")

// transport returns a transport for one call, and the token for it.
func (c *Client) transport(ctx context.Context) (*http.Transport, string, error) {
	var dialer net.Dialer
	network, addr := "tcp", c.Addr
	if path, ok := socket.Path(c.Addr); ok {
		network, addr = "unix", path
	}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, "", fmt.Errorf("%w (is the server running, with the same OPERATOR_ADDR?)", err)
	}
	token := ""
	if network == "tcp" {
		if len(c.Secrets) == 0 {
			conn.Close()
			return nil, "", errNoSecret
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		key, err := c.prove(ctx, conn)
		stop()
		if err == nil {
			token, err = c.token(key)
		}
		if err != nil {
			conn.Close()
			return nil, "", err
		}
	}
	// The call uses the connection that was proved, and no other one.
	used := false
	return &http.Transport{
		ResponseHeaderTimeout: headerWait, DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("the connection was lost")
			}
			used = true
			return conn, nil
		},
	}, token, nil
}
