package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/wsauth"
)

// For six hours, with tokens that are valid for fifteen minutes, one connection
// carries every message once and in order. The file holds the current pair.
func TestRefreshesForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace, span = time.Second, 6 * time.Hour
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		first := h.put()
		last := int(span / pace)
		wait := h.run(t.Context(), &ticking{numbers{last: last}, pace}, h.credential())
		h.expect(t.Context(), last)
		if err := wait(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if n := h.connections.Load(); n != 1 {
			t.Errorf("%d connections\n%s", n, h.logs)
		}
		// Each token is used for about two thirds of its lifetime.
		if n := h.refreshes.Load(); n < 32 || n > 42 {
			t.Errorf("%d refreshes in six hours", n)
		}
		if e, v := h.events(wsauth.EventRefreshed), h.events(wsauth.EventExpired); e != h.refreshes.Load() || v != 0 {
			t.Errorf("%d tokens were replaced and %d expired", e, v)
		}
		now := h.read()
		if now.RefreshToken == first.RefreshToken {
			t.Error("the file holds the first pair")
		}
		if _, err := h.issuer.Refresh(t.Context(), now.RefreshToken, wsauth.Peer{}); err != nil {
			t.Error("the refresh token in the file is not valid:", err)
		}
		h.holdsNo(first.Token, first.RefreshToken, now.Token, now.RefreshToken)
	})
}

// The same on real sockets, with the shortest lifetimes that are possible.
func TestRefreshesOnRealSockets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, ln, houseConfig{lifetime: 2 * time.Second})
	h.put()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	// The source ends after four refreshes, so no time is assumed.
	source := &until{ticking: ticking{numbers{last: 1 << 30}, 5 * time.Millisecond}, done: func() bool { return h.refreshes.Load() >= 4 }}
	wait := h.run(ctx, source, h.credential())
	if err := wait(); !errors.Is(err, io.EOF) {
		t.Errorf("%v\n%s", err, h.logs)
	}
	h.expectKept(t, source.next-1)
	if n := h.connections.Load(); n != 1 {
		t.Errorf("%d connections\n%s", n, h.logs)
	}
	if _, err := h.issuer.Refresh(t.Context(), h.read().RefreshToken, wsauth.Peer{}); err != nil {
		t.Error(err)
	}
}

// A fault of a refresh ends no connection and loses no message.
func TestRefreshFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler)
		why   string
	}{
		{"answer lost", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				issuer.ServeHTTP(discarded{http.Header{}}, r)
				drop(w)
				return
			}
			issuer.ServeHTTP(w, r)
		}, "the token is used up; the same one again gets the same answer"},
		{"answer cut", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				issuer.ServeHTTP(discarded{http.Header{}}, r)
				w.Header().Set("Content-Length", "500")
				_, _ = w.Write([]byte(`{"token":"`))
				return
			}
			issuer.ServeHTTP(w, r)
		}, "half an answer is none"},
		{"unavailable", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%4 != 0 {
				http.Error(w, `{"error":"Unavailable"}`, http.StatusServiceUnavailable)
				return
			}
			issuer.ServeHTTP(w, r)
		}, "nothing was decided"},
		{"silent", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				issuer.ServeHTTP(discarded{http.Header{}}, r)
				<-r.Context().Done()
				return
			}
			issuer.ServeHTTP(w, r)
		}, "a server that says nothing is given up"},
		{"portal", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				fmt.Fprint(w, "<html>Welcome to the hotel</html>")
				return
			}
			issuer.ServeHTTP(w, r)
		}, "200 is not yet an answer"},
		{"foreign 401", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				http.Error(w, "Proxy login required", http.StatusUnauthorized)
				return
			}
			issuer.ServeHTTP(w, r)
		}, "only the relay itself refuses for good"},
		{"redirect", func(n int64, w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if n%2 == 1 {
				http.Redirect(w, r, "http://elsewhere.example/", http.StatusTemporaryRedirect)
				return
			}
			issuer.ServeHTTP(w, r)
		}, "a refresh token is not carried elsewhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
				h.put()
				h.onRefresh = func(w http.ResponseWriter, r *http.Request, issuer http.Handler) {
					tc.fault(h.refreshes.Load(), w, r, issuer)
				}
				wait := h.run(t.Context(), &ticking{numbers{last: 3600}, time.Second}, h.credential())
				h.expect(t.Context(), 3600)
				if err := wait(); !errors.Is(err, io.EOF) {
					t.Error(err, tc.why)
				}
				if n, renewed := h.connections.Load(), h.events(wsauth.EventRefreshed); n != 1 || renewed < 5 || h.events(wsauth.EventFamilyRevoked) != 0 {
					t.Errorf("%d connections, %d refreshes (%s)\n%s", n, renewed, tc.why, h.logs)
				}
			})
		})
	}
}

// If the issuer is unreachable until the token has expired, the device becomes
// a viewer and keeps its messages. When the issuer is back, the device
// publishes again on the same connection.
func TestRefreshAfterExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		h.put()
		begun := time.Now()
		h.onRefresh = func(w http.ResponseWriter, r *http.Request, issuer http.Handler) {
			if time.Since(begun) < 30*time.Minute {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			issuer.ServeHTTP(w, r)
		}
		wait := h.run(t.Context(), &ticking{numbers{last: 2400}, time.Second}, h.credential())
		h.expect(t.Context(), 2400)
		if err := wait(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if n, ended := h.connections.Load(), h.events(wsauth.EventExpired); n != 1 || ended != 1 {
			t.Errorf("%d connections, %d tokens expired\n%s", n, ended, h.logs)
		}
	})
}

// No message is lost if a token is revoked within a stream, whether the relay
// makes the device a viewer or closes the connection.
func TestRevokedInMidStream(t *testing.T) {
	for _, choice := range []wsauth.OnExpiry{wsauth.OnExpiryView, wsauth.OnExpiryClose} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute, gate: func(c *wsauth.Config) { c.OnExpiry = choice }})
			h.put()
			wait := h.run(t.Context(), &ticking{numbers{last: 5000}, 10 * time.Millisecond}, h.credential())
			go func() {
				for range 5 {
					time.Sleep(5 * time.Second)
					h.gate.Revoke("pi-1", time.Now())
				}
			}()
			h.expect(t.Context(), 5000)
			if err := wait(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			if n := h.connections.Load(); choice == wsauth.OnExpiryView && n != 1 || choice == wsauth.OnExpiryClose && n != 6 {
				t.Errorf("%d connections\n%s", n, h.logs)
			}
		})
	}
}

// A refused refresh token is never sent again, and the log says what to do. A
// new pair in the file is used without a restart, and no message is lost.
func TestRefreshRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		p := h.put()
		h.write(p.Token, p.ExpiresAt.Unix(), "unknown-to-the-relay")
		wait := h.run(t.Context(), &ticking{numbers{last: 2400}, time.Second}, h.credential())
		go func() {
			time.Sleep(30 * time.Minute)
			if n := h.refreshes.Load(); n != 1 {
				t.Errorf("shown %d times", n)
			}
			if !strings.Contains(h.logs.String(), "server token -pair") {
				t.Errorf("the log does not say what to do:\n%s", h.logs)
			}
			h.put()
		}()
		h.expect(t.Context(), 2400)
		if err := wait(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if n := h.connections.Load(); n != 1 {
			t.Errorf("%d connections\n%s", n, h.logs)
		}
		h.holdsNo(p.Token, "unknown-to-the-relay")
	})
}

// A token without a refresh token is used until it expires. A new token in the
// file is used without a restart.
func TestBareToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{})
		sign := func(ttl time.Duration) {
			token, err := h.keys.SignAt(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: time.Now().Add(ttl)}, time.Now())
			if err == nil {
				err = os.WriteFile(h.file, []byte(token+"\n"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		sign(time.Hour)
		wait := h.run(t.Context(), &ticking{numbers{last: 6000}, time.Second}, h.credential())
		go func() {
			time.Sleep(80 * time.Minute)
			sign(time.Hour)
		}()
		h.expect(t.Context(), 6000)
		if err := wait(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if h.refreshes.Load() != 0 || h.connections.Load() != 1 {
			t.Errorf("%d refreshes, %d connections", h.refreshes.Load(), h.connections.Load())
		}
	})
}

// If a device loses its power after it has written a pair, it begins with that
// pair. If it loses its power before, it gets the same answer again within some
// seconds.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		first := h.put()
		c := h.credential()
		token, err := c.Refresh(t.Context(), publish.Token{Value: first.Token})
		if err != nil {
			t.Fatal(err)
		}
		written := h.read()
		if written.Token != token.Value || written.RefreshToken == first.RefreshToken {
			t.Error("what was handed out is not in the file")
		}
		if info, err := os.Stat(h.file); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
		if _, err := os.Stat(h.file + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Error("a copy was left:", err)
		}
		if again, err := h.credential().Token(t.Context()); err != nil || again.Value != token.Value {
			t.Error("after a crash the old pair is used:", err)
		}

		// The pair was not written: the file is as before.
		h.write(first.Token, first.ExpiresAt.Unix(), first.RefreshToken)
		time.Sleep(10 * time.Second)
		if again, err := h.credential().Refresh(t.Context(), publish.Token{Value: first.Token}); err != nil || again.Value != token.Value {
			t.Error("the lost answer is not got again:", err)
		}
		if h.read() != written {
			t.Error("the file holds something else")
		}
	})
}

// If a new pair could not be saved, none is asked for, and the old one stays
// valid.
func TestRefreshNeedsItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: 15 * time.Minute})
		first := h.put()
		// This prevents the write even for root; a read-only directory would
		// not.
		if err := os.MkdirAll(h.file+".new/taken", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := h.credential().Refresh(t.Context(), publish.Token{Value: first.Token}); err == nil || h.refreshes.Load() != 0 {
			t.Errorf("%v after %d requests", err, h.refreshes.Load())
		}
		if h.read().RefreshToken != first.RefreshToken {
			t.Error("the file was changed")
		}
	})
}

// The link breaks again and again, even during a refresh.
func TestRefreshOverABadLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		h := newHouse(t, ln, houseConfig{lifetime: 2 * time.Minute})
		h.put()
		var conns atomic.Pointer[[]net.Conn]
		conns.Store(&[]net.Conn{})
		h.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := ln.dial(ctx, network, addr)
			if err == nil {
				all := append(*conns.Load(), c)
				conns.Store(&all)
			}
			return c, err
		}
		go func() {
			for n := range 60 {
				time.Sleep(time.Minute + time.Duration(n*37%60)*time.Second)
				for _, c := range *conns.Load() {
					_ = c.Close()
				}
				conns.Store(&[]net.Conn{})
				ln.down.Store(true)
				time.Sleep(3 * time.Second)
				ln.down.Store(false)
			}
		}()
		wait := h.run(t.Context(), &ticking{numbers{last: 2 * 7200}, 500 * time.Millisecond}, h.credential())
		h.expect(t.Context(), 2*7200)
		if err := wait(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if h.events(wsauth.EventFamilyRevoked) != 0 || h.connections.Load() < 20 {
			t.Errorf("%d connections", h.connections.Load())
		}
	})
}

// A device that was replaced, or whose connection the operator ended, does not
// come back at once.
func TestLongAbsence(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(h *house, id string)
	}{
		{"ended by the operator", func(h *house, id string) { h.gate.End(id) }},
		{"replaced", func(h *house, _ string) {
			// Another session authenticates as the same device.
			token, err := h.keys.SignAt(wsauth.ClaimSet{Subject: "pi-1", ExpiresAt: time.Now().Add(time.Hour)}, time.Now())
			if err != nil {
				h.t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(h.t.Context())
			wait := h.run(ctx, &ticking{numbers{last: 0}, time.Hour}, publish.TokenFunc(func() (string, error) { return token, nil }))
			synctest.Wait()
			cancel()
			_ = wait()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newPipes(), houseConfig{lifetime: time.Hour, gate: func(c *wsauth.Config) {
					c.MaxSessions, c.OverLimit = 1, wsauth.OverLimitReplace
				}})
				h.put()
				wait := h.run(t.Context(), &ticking{numbers{last: 600}, time.Second}, h.credential())
				time.Sleep(10 * time.Second)
				sessions := h.gate.Sessions()
				if len(sessions) != 1 {
					t.Fatal(len(sessions), h.logs)
				}
				before := h.connections.Load()
				tc.end(h, sessions[0].ID)
				began := h.connections.Load() - before
				time.Sleep(2 * time.Minute)
				if n := h.connections.Load() - before - began; n != 0 {
					t.Errorf("came back %d times within two minutes\n%s", n, h.logs)
				}
				h.expect(t.Context(), 600)
				if err := wait(); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			})
		})
	}
}

// When ctx ends, the device waits for the acknowledgements and sends a close
// frame.
func TestRunEndsInForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newPipes(), houseConfig{lifetime: time.Hour})
		h.put()
		ctx, stop := context.WithCancel(t.Context())
		source := &ticking{numbers{last: 1000}, time.Second}
		wait := h.run(ctx, source, h.credential())
		time.Sleep(time.Minute + time.Millisecond)
		stop()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		h.expectKept(t, source.next-1)
		if strings.Contains(h.logs.String(), "WARN") {
			t.Error(h.logs)
		}
	})
}
