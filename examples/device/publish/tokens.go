package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Token is what the relay wants to see. It prints, and logs, without its value.
type Token struct {
	Value string
	// RenewAt is when to ask for the next one. Zero: not before the relay says that this one expires.
	RenewAt time.Time
}

// Format implements [fmt.Formatter], so that no verb prints a token.
func (t Token) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "token") }

// LogValue implements [slog.LogValuer], so that no handler writes a token.
func (t Token) LogValue() slog.Value { return slog.StringValue("token") }

// Tokens is where Run gets its tokens from. Both methods return when ctx ends, or
// shortly after.
type Tokens interface {
	// Token returns what to show on a new connection.
	Token(ctx context.Context) (Token, error)
	// Refresh returns what replaces old, which expires, has expired or was refused.
	// Its error is ErrNoRefresh where there is no way to get one.
	Refresh(ctx context.Context, old Token) (Token, error)
}

// Errors of Tokens.
var (
	ErrNoRefresh      = errors.New("publish: there is no other token: make one with `server token`, or a pair that refreshes itself with `server token -pair`, and put it into the token file")
	ErrRefreshRefused = errors.New("publish: the relay refused the refresh token, which is final: make a new pair with `server token -pair` and put it into the token file")
)

// TokenFunc is a func that makes tokens, as Tokens.
type TokenFunc func() (string, error)

// Token calls f.
func (f TokenFunc) Token(context.Context) (Token, error) {
	value, err := f()
	return Token{Value: value}, err
}

// Refresh calls f.
func (f TokenFunc) Refresh(ctx context.Context, _ Token) (Token, error) { return f.Token(ctx) }
