package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

// When a pair ends for good, its access tokens live shorter and shorter. The
// device does not refresh them faster and faster, and it was warned each day
// for two weeks.
func TestEndOfPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 20 * 24 * time.Hour
		h := newHouse(t, newPipes(), houseConfig{lifetime: 6 * time.Hour, refresh: func(c *refresh.Config) { c.Lifetime = life }})
		h.put()
		begun := time.Now()
		last := 0 // refreshes in the last minute of the pair
		h.onRefresh = func(w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if left := life - time.Since(begun); left > 0 && left < time.Minute {
				last++
			}
			issuer.ServeHTTP(w, r)
		}
		c := h.credential()
		warnings := func() int { return strings.Count(h.logs.String(), "the pair ends for good") }
		token, err := c.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for time.Since(begun) < life+time.Minute {
			if d := time.Until(token.RenewAt); d <= 0 {
				t.Fatalf("to be refreshed %v ago", -d)
			}
			if time.Since(begun) < 5*24*time.Hour && warnings() > 0 {
				t.Fatalf("warned too early:\n%s", h.logs)
			}
			time.Sleep(time.Until(token.RenewAt))
			next, err := c.Refresh(t.Context(), token)
			if err != nil {
				if !errors.Is(err, publish.ErrRefreshRefused) || time.Since(begun) < life-time.Second {
					t.Fatalf("after %v: %v", time.Since(begun), err)
				}
				break
			}
			token = next
		}
		if last > 20 {
			t.Errorf("%d refreshes in the last minute", last)
		}
		if n := warnings(); n < 13 || n > 15 {
			t.Errorf("%d warnings in the 14 days before the end", n)
		}
		h.holdsNo(token.Value)
	})
}

// The end is kept in the file, so that the device knows it after a restart. A
// file without it, or with nonsense, gives no warning.
func TestEndInFile(t *testing.T) {
	for _, row := range []struct {
		ends  string
		warns bool
		why   string
	}{
		{`,"ends_at":` + unix(time.Hour), true, "soon"},
		{`,"ends_at":` + unix(-time.Hour), true, "it is over"},
		{`,"ends_at":` + unix(15*24*time.Hour), false, "later"},
		{``, false, "made by an older server"},
		{`,"ends_at":0`, false, "unknown"},
		{`,"ends_at":-5`, false, "nonsense"},
		{`,"ends_at":9223372036854775807`, false, "beyond all dates"},
	} {
		h := &house{t: t, logs: new(testkit.Log), file: t.TempDir() + "/token.json"}
		if err := os.WriteFile(h.file, []byte(`{"token":"a.b.c","refresh_token":"r"`+row.ends+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		h.credential()
		if warned := strings.Contains(h.logs.String(), "ends for good"); warned != row.warns {
			t.Errorf("%s (%s): warned %v\n%s", row.ends, row.why, warned, h.logs)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		p := h.put()
		if _, err := h.credential().Refresh(t.Context(), publish.Token{Value: p.Token}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(h.file)
		var kept struct {
			EndsAt int64 `json:"ends_at"`
		}
		if err != nil || json.Unmarshal(data, &kept) != nil || kept.EndsAt != p.EndsAt.Unix() {
			t.Errorf("the file keeps %d, want %d (%v)", kept.EndsAt, p.EndsAt.Unix(), err)
		}
	})
}

func unix(d time.Duration) string {
	text, _ := json.Marshal(time.Now().Add(d).Unix())
	return string(text)
}

// lateSource makes its only message when ctx ends, and takes a second for it.
type lateSource struct{ made bool }

func (s *lateSource) Next(ctx context.Context) (wire.Message, error) {
	<-ctx.Done()
	if s.made {
		return wire.Message{}, ctx.Err()
	}
	s.made = true
	time.Sleep(time.Second)
	return wire.Message{Text: "0"}, nil
}

// A message that the source is making when Run has to end is published.
func TestLastMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: time.Hour})
		h.put()
		ctx, stop := context.WithCancel(t.Context())
		wait := h.run(ctx, &lateSource{}, h.credential())
		time.Sleep(time.Minute)
		stop()
		h.expect(t.Context(), 0)
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if strings.Contains(h.logs.String(), "before all messages") {
			t.Error(h.logs)
		}
	})
}
