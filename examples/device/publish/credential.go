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

	"github.com/relayguard/relayguard/examples/internal/files"
)

// maxTokenFile is more than any token file holds, in bytes.
const maxTokenFile = 16 << 10

// CredentialConfig says where a Credential is kept and renewed. File is required.
type CredentialConfig struct {
	// File holds what `server token -pair` prints, {"token":…,"expires_at":…,"refresh_token":…}, or a bare token.
	File string
	// RefreshURL is where the relay makes new pairs; see the func of that name. Empty: nowhere.
	RefreshURL string
	// InsecureRefreshOverHTTP lets refresh tokens go over a network in the clear. Whoever reads one has the device.
	InsecureRefreshOverHTTP bool
	// Client makes the requests; nil is a client of its own.
	Client *http.Client
	Logger *slog.Logger // nil: silence
}

// Credential is Tokens from a file. A pair is refreshed after about two thirds of the
// access token's lifetime, and the new one is in the file before it is used, so that
// a device may lose its power at any time. The one moment that no client can guard is
// between the relay's answer and the file: an old refresh token is good for some
// seconds after its use, and shown later looks stolen.
//
// A bare token is used until it expires. In either case the file is read again
// whenever a token is wanted, so that somebody may replace it meanwhile.
//
// A Credential is safe for concurrent use. Two must not share a file.
type Credential struct {
	cfg  CredentialConfig
	busy chan struct{} // full while somebody uses what follows

	file    []byte // the file as it was seen last
	pair    pair
	renewAt time.Time
	unsaved bool   // pair is newer than the file
	refused string // the refresh token that was refused
}

// pair is the form of the file and of the relay's answer.
type pair struct {
	Token        string `json:"token"`
	ExpiresAt    int64  `json:"expires_at,omitempty"` // Unix seconds
	RefreshToken string `json:"refresh_token,omitempty"`
}

// NewCredential reads the file for the first time.
func NewCredential(cfg CredentialConfig) (*Credential, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{}
	}
	client := *cfg.Client
	// A redirected request would show the refresh token to whoever it is sent to.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.Client = &client
	c := &Credential{cfg: cfg, busy: make(chan struct{}, 1)}
	if err := c.read(); err != nil {
		return nil, err
	}
	if c.pair.RefreshToken != "" && cfg.RefreshURL != "" {
		if err := checkRefreshURL(cfg.RefreshURL, cfg.InsecureRefreshOverHTTP); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(cfg.File); err == nil && info.Mode().Perm()&0o077 != 0 {
		cfg.Logger.Warn("the token file can be read by others than its owner: chmod 600 it", "file", cfg.File)
	}
	return c, nil
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (c *Credential) Format(w fmt.State, _ rune) { fmt.Fprint(w, "credential of ", c.cfg.File) }

// Refreshes reports whether the credential can renew itself.
func (c *Credential) Refreshes() bool {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	return c.pair.RefreshToken != "" && c.cfg.RefreshURL != ""
}

// Token returns the present token, after a refresh where that is due.
func (c *Credential) Token(ctx context.Context) (Token, error) {
	if err := c.begin(ctx); err != nil {
		return Token{}, err
	}
	defer func() { <-c.busy }()
	if !c.renewAt.IsZero() && !time.Now().Before(c.renewAt) && c.pair.RefreshToken != "" {
		// By this machine's clock, which may be wrong: the relay decides.
		if err := c.refresh(ctx); err != nil {
			c.cfg.Logger.Error("the token is due and could not be refreshed", "error", err)
		}
	}
	return c.present(), nil
}

// Refresh replaces old, unless it was replaced already.
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

// begin waits for its turn and looks at the file.
func (c *Credential) begin(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.read(); err != nil {
		c.cfg.Logger.Error("what was read before is used", "error", err)
	}
	if c.unsaved {
		c.save(nil)
	}
	return nil
}

func (c *Credential) present() Token { return Token{c.pair.Token, c.renewAt} }

// read takes over what is in the file, if that is not what was there before.
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
	// It is not known when it was issued but by this machine's clock.
	if ends, lifetime := p.times(); !ends.IsZero() && p.RefreshToken != "" {
		c.renewAt = ends.Add(share(lifetime) - lifetime)
	}
	return nil
}

// refresh replaces the pair.
func (c *Credential) refresh(ctx context.Context) error {
	switch {
	case c.pair.RefreshToken == "":
		return ErrNoRefresh
	case c.pair.RefreshToken == c.refused:
		return ErrRefreshRefused
	case c.cfg.RefreshURL == "":
		return errors.New("publish: there is a refresh token and no address to use it at")
	}
	if err := checkRefreshURL(c.cfg.RefreshURL, c.cfg.InsecureRefreshOverHTTP); err != nil {
		return err // the file may have been a bare token's before
	}
	// A refresh token is good once. One whose successor cannot be kept must not be used.
	slot, err := files.Reserve(c.cfg.File, maxTokenFile/4)
	if err != nil {
		return fmt.Errorf("publish: a new pair could not be kept, so none is asked for: %w", err)
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
	ends, lifetime := next.times()
	c.renewAt = time.Time{}
	if !ends.IsZero() {
		// Counted from now, so that this machine's clock need not be right.
		c.renewAt = time.Now().Add(share(lifetime))
	}
	c.save(slot)
	return nil
}

// save writes the pair to the file. The old refresh token is worth nothing any more,
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
		c.cfg.Logger.Error("the new pair is not in the token file: until it is, the device must not be restarted", "error", err)
		return
	}
	c.file, c.unsaved = append(data, '\n'), false
}

// share is the part of a lifetime after which a token is renewed: about two thirds,
// never twice the same, lest all devices come at once.
func share(lifetime time.Duration) time.Duration {
	return time.Duration(float64(lifetime) * (0.60 + 0.13*mathrand.Float64()))
}

// times returns when the access token ends and how long it lasts at least, as far as
// it says so: times in tokens are whole seconds. It is not verified: that is for the relay.
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
	const most = 1 << 40 // seconds; a date beyond it means nothing
	if claims.Expires <= 0 || claims.Expires > most {
		return time.Time{}, 0
	}
	ends = time.Unix(int64(claims.Expires), 0)
	lifetime = time.Until(ends)
	if claims.Issued > 0 && claims.Issued < claims.Expires {
		lifetime = time.Duration(min(claims.Expires-claims.Issued, 1e9)) * time.Second
	}
	return ends, max(lifetime-time.Second, 0)
}

var errTokenFile = errors.New(`must hold a token, or {"token":…,"expires_at":…,"refresh_token":…} as ` + "`server token -pair` prints")

// parsePair reads a pair or a bare token. Its error quotes nothing.
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

// plain reports whether s is some printable characters without spaces, as tokens are.
func plain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
