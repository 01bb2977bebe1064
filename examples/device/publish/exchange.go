package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// The times of a refresh. If an answer was lost, the relay gives it again only
// for some seconds, so all attempts are made within these.
const (
	exchangeWait = 5 * time.Second        // for one attempt
	exchangeAll  = 15 * time.Second       // from the first attempt to the start of the last
	exchangeStep = 250 * time.Millisecond // before the third attempt, then doubled
)

// RefreshURL returns the refresh URL of the relay with this WebSocket URL. For
// wss://host/ws it is https://host/auth/refresh.
func RefreshURL(relay string) (string, error) {
	u, err := url.Parse(relay)
	if err != nil || u.Host == "" {
		return "", errRelayURL
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	default:
		return "", errRelayURL
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path.Join("/", path.Dir(u.Path), "auth/refresh")}).String(), nil
}

var errRelayURL = errors.New("publish: the URL of the relay must look like wss://relay.example/ws")

// checkRefreshURL returns an error if refresh is no URL, or if a refresh token
// would be sent there in the clear and insecure is not set.
func checkRefreshURL(refresh string, insecure bool) error {
	u, err := url.Parse(refresh)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("publish: the refresh URL must look like https://relay.example/auth/refresh")
	case u.Scheme == "http" && !Loopback(u.Hostname()) && !insecure:
		return errors.New("publish: a refresh token must not be sent over a network in the clear: use wss:// for the relay, and https:// for the refresh URL")
	}
	return nil
}

// Loopback reports whether host is this machine.
func Loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// exchange sends the refresh token and returns the new pair. If the request or
// the answer is lost, it tries again with the same token.
func (c *Credential) exchange(ctx context.Context) (pair, error) {
	begun := time.Now()
	for wait := time.Duration(0); ; wait = max(2*wait, exchangeStep) {
		// An attempt goes on after ctx has ended, because only its answer has
		// the new pair.
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeWait)
		p, err := c.ask(attempt)
		cancel()
		if err == nil || errors.Is(err, ErrRefreshRefused) {
			return p, err
		}
		pause := wait/2 + mathrand.N(wait/2+1)
		if ctx.Err() != nil || time.Since(begun)+pause > exchangeAll {
			return pair{}, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return pair{}, err
		case <-timer.C:
		}
	}
}

// ask makes one attempt. After any error but ErrRefreshRefused, it is unknown
// whether the relay has made a new pair.
func (c *Credential) ask(ctx context.Context) (pair, error) {
	body, err := json.Marshal(map[string]string{"refresh_token": c.pair.RefreshToken})
	if err != nil {
		return pair{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.RefreshURL, bytes.NewReader(body))
	if err != nil {
		return pair{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.cfg.Client.Do(req)
	if err != nil {
		return pair{}, fmt.Errorf("publish: refreshing: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxTokenFile))
	if err != nil {
		return pair{}, fmt.Errorf("publish: refreshing: %w", err)
	}
	// Only an answer of the relay itself counts. A proxy or the login page of a
	// hotel's network may have answered instead.
	var said struct{ Error string }
	isJSON := json.Unmarshal(answer, &said) == nil
	switch {
	case res.StatusCode == http.StatusUnauthorized && isJSON && said.Error == "Authentication failed":
		return pair{}, ErrRefreshRefused
	case res.StatusCode != http.StatusOK:
		return pair{}, fmt.Errorf("publish: refreshing: %s answers %d %s", c.cfg.RefreshURL, res.StatusCode, http.StatusText(res.StatusCode))
	}
	p, err := parsePair(answer)
	if err != nil || !isJSON || p.RefreshToken == "" {
		return pair{}, fmt.Errorf("publish: refreshing: the answer of %s is not a pair", c.cfg.RefreshURL)
	}
	return p, nil
}
