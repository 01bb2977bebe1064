package publish

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
	"github.com/relayguard/relayguard/examples/internal/files"
)

// The log is warned of the end of a pair this long before, and this often.
const (
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// mostSeconds is the latest date that is valid, in Unix seconds.
const mostSeconds = 1 << 40

// maxTokenFile is the largest token file that is read, in bytes.
const maxTokenFile = 16 << 10

// CredentialConfig configures a Credential. File is required.
type CredentialConfig struct {
	// File holds a token, or the output of `server token -pair`:
	// {"token":…,"expires_at":…,"refresh_token":…,"ends_at":…}.
	File string
	// RefreshURL is the relay's URL for a refresh; see the function RefreshURL.
	// If empty, the token is not refreshed.
	RefreshURL string
	// InsecureRefreshOverHTTP allows to send refresh tokens over a network in
	// the clear. A person who reads one can publish as the device.
	InsecureRefreshOverHTTP bool
	// Client makes the requests. It follows no redirect to another scheme, host
	// or port. If nil, the Credential has a client of its own.
	Client *http.Client
	Logger *slog.Logger // if nil, nothing is logged
}

// Credential is Tokens in a file. It refreshes a pair after about two thirds of
// the access token's lifetime, and writes the new pair to the file before it is
// used. So a device may lose its power at nearly any time. Only between the
// relay's answer and the write can the new pair be lost: the relay accepts the
// old refresh token for some seconds after its use, and later takes it for
// stolen.
//
// A pair can be refreshed until "ends_at". In the 14 days before, the log has a
// warning each day.
//
// A token without a refresh token is used until it expires. The Credential
// reads the file again each time that it needs a token, so the operator can
// replace the file meanwhile.
//
// A Credential may be used by many goroutines. Two Credentials must not share a
// file.
type Credential struct {
	cfg  CredentialConfig
	busy chan struct{} // full while a goroutine uses the fields below

	file    []byte // the content of the file when it was last read or written
	pair    pair
	renewAt time.Time
	warned  time.Time // when the log was last warned of the end of the pair
	unsaved bool      // pair is newer than the file
	refused string    // the refresh token that was refused
}

// pair is the content of the file, and the relay's answer to a refresh.
type pair struct {
	Token        string `json:"token"`
	ExpiresAt    int64  `json:"expires_at,omitempty"` // Unix seconds
	RefreshToken string `json:"refresh_token,omitempty"`
	EndsAt       int64  `json:"ends_at,omitempty"` // Unix seconds: the end of the pair, even if it is refreshed
}

// NewCredential returns the credential in the file. It returns an error if the
// file cannot be read or parsed, or if the refresh URL is not safe.
func NewCredential(cfg CredentialConfig) (*Credential, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Client = client.New(cfg.Client)
	c := &Credential{cfg: cfg, busy: make(chan struct{}, 1)}
	if err := c.read(); err != nil {
		return nil, err
	}
	if c.pair.RefreshToken != "" && cfg.RefreshURL != "" {
		if err := checkRefreshURL(cfg.RefreshURL, cfg.InsecureRefreshOverHTTP); err != nil {
			return nil, err
		}
	}
	c.warn()
	if info, err := os.Stat(cfg.File); err == nil && info.Mode().Perm()&0o077 != 0 {
		cfg.Logger.Warn("other users can read the token file: run chmod 600", "file", cfg.File)
	}
	return c, nil
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (c *Credential) Format(w fmt.State, _ rune) { fmt.Fprint(w, "credential of ", c.cfg.File) }

// Refreshes reports whether the credential can refresh its token.
func (c *Credential) Refreshes() bool {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	return c.pair.RefreshToken != "" && c.cfg.RefreshURL != ""
}

// Token returns the token, after a refresh if one is due.
func (c *Credential) Token(ctx context.Context) (Token, error) {
	if err := c.begin(ctx); err != nil {
		return Token{}, err
	}
	defer func() { <-c.busy }()
	if !c.renewAt.IsZero() && !time.Now().Before(c.renewAt) && c.pair.RefreshToken != "" {
		// The clock of this machine may be wrong, so a failure is not an error:
		// the relay decides whether the token is valid.
		if err := c.refresh(ctx); err != nil {
			c.cfg.Logger.Error("the token could not be refreshed in time", "error", err)
		}
	}
	return c.present(), nil
}

// Refresh returns a new token. If old is no longer the token of the credential,
// it returns that token without a refresh.
func (c *Credential) Refresh(ctx context.Context, old Token) (Token, error) {
	if err := c.begin(ctx); err != nil {
		return Token{}, err
	}
	defer func() { <-c.busy }()
	if c.pair.Token == old.Value {
		if err := c.refresh(ctx); err != nil {
			return Token{}, err
		}
	}
	return c.present(), nil
}

// begin waits until no other goroutine uses the credential, and reads the file.
// The caller then has to empty c.busy.
func (c *Credential) begin(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.read(); err != nil {
		c.cfg.Logger.Error("the token file cannot be used; the device goes on with the token that it has", "error", err)
	}
	if c.unsaved {
		c.save(nil)
	}
	c.warn()
	return nil
}

// warn writes a warning to the log once a day if the pair ends soon. A refresh
// does not change that end.
func (c *Credential) warn() {
	if c.pair.EndsAt <= 0 || c.pair.EndsAt > mostSeconds {
		return
	}
	ends := time.Unix(c.pair.EndsAt, 0)
	left := time.Until(ends)
	if left > warnBefore || time.Since(c.warned) < warnEvery {
		return
	}
	c.warned = time.Now()
	c.cfg.Logger.Warn("the pair ends for good: make a new one with `server token -pair` and put it into the token file",
		"ends_at", ends.UTC().Format(time.RFC3339), "days_left", max(int(left/(24*time.Hour)), 0))
}

// present returns the token that the credential has.
func (c *Credential) present() Token { return Token{c.pair.Token, c.renewAt} }

// read reads the file, and takes over its content if it has changed.
func (c *Credential) read() error {
	data, err := files.Read(c.cfg.File, maxTokenFile)
	if err != nil {
		return fmt.Errorf("publish: the token file: %w", err)
	}
	if c.file != nil && bytes.Equal(data, c.file) {
		return nil
	}
	p, err := parsePair(data)
	if err != nil {
		return fmt.Errorf("publish: the token file %s: %w", c.cfg.File, err)
	}
	c.file, c.pair, c.unsaved = data, p, false
	c.renewAt = time.Time{}
	// The time of issue is not known by the clock of this process, so this
	// depends on the wall clock of the machine.
	if ends, lifetime := p.times(); !ends.IsZero() && p.RefreshToken != "" {
		c.renewAt = ends.Add(share(lifetime) - lifetime)
	}
	return nil
}

// refresh replaces the pair by a new one from the relay.
func (c *Credential) refresh(ctx context.Context) error {
	switch {
	case c.pair.RefreshToken == "":
		return ErrNoRefresh
	case c.pair.RefreshToken == c.refused:
		return ErrRefreshRefused
	case c.cfg.RefreshURL == "":
		return errors.New("publish: there is a refresh token, but no refresh URL")
	}
	if err := checkRefreshURL(c.cfg.RefreshURL, c.cfg.InsecureRefreshOverHTTP); err != nil {
		return err // NewCredential does not check this for a file without a refresh token
	}
	// A refresh token is good once. One whose successor cannot be kept must not
	// be used.
	slot, err := files.Reserve(c.cfg.File, maxTokenFile/4)
	if err != nil {
		return fmt.Errorf("publish: a new pair could not be saved, so the token is not refreshed: %w", err)
	}
	defer slot.Discard()
	next, err := c.exchange(ctx)
	if errors.Is(err, ErrRefreshRefused) {
		c.refused = c.pair.RefreshToken
	}
	if err != nil {
		return err
	}
	c.pair, c.unsaved = next, true
	c.warn()
	ends, lifetime := next.times()
	c.renewAt = time.Time{}
	if !ends.IsZero() {
		// The lifetime begins now, so the clock of this machine need not be
		// right.
		c.renewAt = time.Now().Add(max(share(lifetime), renewFloor))
	}
	c.save(slot)
	return nil
}

// save writes the pair to the file. The old refresh token is no longer valid,
// so a pair that could not be written is used all the same, and written later.
func (c *Credential) save(slot *files.Slot) {
	data, err := json.Marshal(c.pair)
	if err == nil && slot == nil {
		slot, err = files.Reserve(c.cfg.File, maxTokenFile/4)
	}
	if err == nil {
		err = slot.Commit(append(data, '\n'))
	}
	if err != nil {
		c.cfg.Logger.Error("the new pair could not be saved in the token file: do not restart the device before it is saved", "error", err)
		return
	}
	c.file, c.unsaved = append(data, '\n'), false
}

// share returns the part of a lifetime after which a token is refreshed. It is
// about two thirds, and random, so that devices do not all refresh at once.
func share(lifetime time.Duration) time.Duration {
	return time.Duration(float64(lifetime) * (0.60 + 0.13*mathrand.Float64()))
}

// times returns when the access token expires, and the least lifetime that it
// can have, because times in tokens are whole seconds. If they are unknown,
// they are zero. The token is not verified; the relay does that.
func (p pair) times() (ends time.Time, lifetime time.Duration) {
	var claims struct {
		Expires float64 `json:"exp"`
		Issued  float64 `json:"iat"`
	}
	if parts := strings.Split(p.Token, "."); len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(payload, &claims)
		}
	}
	if claims.Expires == 0 {
		claims.Expires = float64(p.ExpiresAt)
	}
	if claims.Expires <= 0 || claims.Expires > mostSeconds {
		return time.Time{}, 0
	}
	ends = time.Unix(int64(claims.Expires), 0)
	lifetime = time.Until(ends)
	if claims.Issued > 0 && claims.Issued < claims.Expires {
		lifetime = time.Duration(min(claims.Expires-claims.Issued, 1e9)) * time.Second
	}
	return ends, max(lifetime-time.Second, 0)
}

var errTokenFile = errors.New(`must hold a token, or {"token":…,"expires_at":…,"refresh_token":…}, the output of ` + "`server token -pair`")

// parsePair parses a pair, or a token without JSON. Its error does not quote
// data.
func parsePair(data []byte) (pair, error) {
	data = bytes.TrimSpace(data)
	p := pair{Token: string(data)}
	if bytes.HasPrefix(data, []byte("{")) {
		p = pair{}
		if json.Unmarshal(data, &p) != nil {
			return pair{}, errTokenFile
		}
	}
	if !plain(p.Token) || p.RefreshToken != "" && !plain(p.RefreshToken) {
		return pair{}, errTokenFile
	}
	return p, nil
}

// plain reports whether s is not empty and has only printable ASCII characters
// other than the space, as tokens do.
func plain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
