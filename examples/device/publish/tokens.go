package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Token is a token for the relay. Its value is never printed or logged.
type Token struct {
	Value string
	// RenewAt is when to refresh the token. If zero, it is refreshed when the
	// relay reports that it will expire.
	RenewAt time.Time
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (t Token) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "token") }

// LogValue implements [slog.LogValuer], so that no handler writes a token.
func (t Token) LogValue() slog.Value { return slog.StringValue("token") }

// Tokens supplies the tokens of Run. When ctx ends, both methods return at once
// or within seconds.
type Tokens interface {
	// Token returns the token for a new connection.
	Token(ctx context.Context) (Token, error)
	// Refresh returns a token to replace old, which will expire, has expired or
	// was refused. If there is no other token, the error is ErrNoRefresh.
	Refresh(ctx context.Context, old Token) (Token, error)
}

// Errors of a [Credential].
var (
	ErrNoRefresh      = errors.New("publish: there is no other token: make one with `server token`, or a pair that refreshes itself with `server token -pair`, and put it into the token file")
	ErrRefreshRefused = errors.New("publish: the relay refused the refresh token and will not accept it later: make a new pair with `server token -pair` and put it into the token file")
)

// TokenFunc is a function that makes a token, as Tokens.
type TokenFunc func() (string, error)

// Token calls f.
func (f TokenFunc) Token(context.Context) (Token, error) {
	value, err := f()
	return Token{Value: value}, err
}

// Refresh calls f.
func (f TokenFunc) Refresh(ctx context.Context, _ Token) (Token, error) { return f.Token(ctx) }
