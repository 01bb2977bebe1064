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

// Bounds on a refresh. The relay repeats an answer that was lost for some seconds, so
// all attempts are made within them.
const (
	exchangeWait = 5 * time.Second        // one attempt
	exchangeAll  = 15 * time.Second       // within which the last one begins
	exchangeStep = 250 * time.Millisecond // before the third attempt; then doubled
)

// RefreshURL is where the relay at that WebSocket address makes new pairs:
// wss://host/ws has it at https://host/auth/refresh.
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

var errRelayURL = errors.New("publish: the relay's address must look like wss://relay.example/ws")

func checkRefreshURL(refresh string, insecure bool) error {
	u, err := url.Parse(refresh)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("publish: the refresh address must look like https://relay.example/auth/refresh")
	case u.Scheme == "http" && !Loopback(u.Hostname()) && !insecure:
		return errors.New("publish: a refresh token must not go over a network in the clear: use wss:// for the relay, and https:// for its refresh address")
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

// exchange uses the refresh token. What can be lost on the way, the request or the
// answer, is cured by asking again with the same token, at once.
func (c *Credential) exchange(ctx context.Context) (pair, error) {
	begun := time.Now()
	for wait := time.Duration(0); ; wait = max(2*wait, exchangeStep) {
		// An exchange that has begun is brought to its end: its answer is the only way on.
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

// ask makes one attempt. Any error but ErrRefreshRefused leaves it open what the relay has done.
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
	// Only what the relay itself says counts: in between there may be a proxy, or the
	// page of a hotel's network.
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
		return pair{}, fmt.Errorf("publish: refreshing: %s answers something else than a pair", c.cfg.RefreshURL)
	}
	return p, nil
}
