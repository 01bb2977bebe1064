package relay

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/history"
)

func ask(h http.Handler, token, body, from string) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", PostPath, strings.NewReader(body))
	req.RemoteAddr = from
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func byRemoteAddr(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr()
}

// A publisher without a connection is a session until it has sent nothing for a
// minute. Nothing is left of it after that, or after the relay has stopped.
func TestPosterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := history.Open(t.Context(), history.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r, token := newTestRelay(t, Config{Log: log})
		r.cfg.ClientIP = byRemoteAddr
		h := r.PostHandler(PostConfig{})
		sessions := func(want int) {
			t.Helper()
			synctest.Wait()
			r.posters.mu.Lock()
			m := len(r.posters.entries)
			r.posters.mu.Unlock()
			if n, all := len(r.cfg.Gate.Sessions()), r.cfg.Requesting.Load(); n != want || m != want || all != int64(want) {
				t.Errorf("%d sessions of %d posters, %d counted, want %d", n, m, all, want)
			}
		}
		for range 3 {
			if w := ask(h, token, `{"text":"a"}`, "192.0.2.7:1"); w.Code != 202 {
				t.Fatal(w.Code, w.Body)
			}
			sessions(1)
			time.Sleep(posterIdle - time.Second)
		}
		if w := ask(h, token, `{"text":"a"}`, "192.0.2.8:1"); w.Code != 202 {
			t.Fatal(w.Code, w.Body)
		}
		sessions(2)
		time.Sleep(2 * time.Second)
		sessions(1)
		time.Sleep(posterIdle)
		sessions(0)

		// One that the operator has ended may come back after a minute.
		ask(h, token, `{"text":"a"}`, "192.0.2.7:1")
		r.cfg.Gate.End(r.cfg.Gate.Sessions()[0].ID)
		for range 5 {
			if w := ask(h, token, `{"text":"b"}`, "192.0.2.7:1"); w.Code != 409 {
				t.Errorf("after its end: %d %s", w.Code, w.Body)
			}
			time.Sleep(posterIdle / 6)
		}
		time.Sleep(posterIdle / 6)
		synctest.Wait()
		if w := ask(h, token, `{"text":"c"}`, "192.0.2.7:1"); w.Code != 202 {
			t.Errorf("after a minute: %d %s", w.Code, w.Body)
		}
		sessions(1)
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		sessions(0)
		if w := ask(h, token, `{"text":"d"}`, "192.0.2.7:1"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("after the stop: %d %s", w.Code, w.Body)
		}
	})
}

// An expired token is no obstacle for the next one.
func TestPosterChangesItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := history.Open(t.Context(), history.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := newTestRelay(t, Config{Log: log})
		h := r.PostHandler(PostConfig{})
		for i := range 10 {
			token := signed(t, 40*time.Second)
			if w := ask(h, token, `{"text":"a"}`, "192.0.2.7:1"); w.Code != 202 {
				t.Fatalf("token %d: %d %s", i, w.Code, w.Body)
			}
			time.Sleep(45 * time.Second) // less than posterIdle
			if w := ask(h, token, `{"text":"a"}`, "192.0.2.7:1"); w.Code != 401 {
				t.Fatalf("token %d, expired: %d %s", i, w.Code, w.Body)
			}
		}
		_ = r.Shutdown(t.Context())
	})
}

// A message is stored or not, and the answer says which.
func TestPostOfAFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 1
		log, err := history.Open(t.Context(), history.Config{Store: flaky{left: &failures}})
		if err != nil {
			t.Fatal(err)
		}
		r, token := newTestRelay(t, Config{Log: log})
		h := r.PostHandler(PostConfig{})
		if w := ask(h, token, `{"text":"a","id":"1"}`, ""); w.Code != 503 || w.Header().Get("Retry-After") == "" || log.Position().Seq() != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := ask(h, token, `{"text":"a","id":"1"}`, ""); w.Code != 202 || strings.Contains(w.Body.String(), "duplicate") || log.Position().Seq() != 1 {
			t.Errorf("again: %d %s", w.Code, w.Body)
		}
		if s := r.Stats(); s.Unpublished != 1 {
			t.Errorf("%d unpublished", s.Unpublished)
		}
		_ = r.Shutdown(t.Context())
	})
}

// A valid token used from many addresses takes bounded memory.
func TestPostersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := history.Open(t.Context(), history.Config{Keep: 2 * maxPosters})
		if err != nil {
			t.Fatal(err)
		}
		both := new(atomic.Int64) // of the rooms of a server
		r, token := newTestRelay(t, Config{Log: log, Requesting: both})
		other, second := newTestRelay(t, Config{Log: log, Requesting: both})
		other.cfg.ClientIP = byRemoteAddr
		r.cfg.ClientIP = byRemoteAddr
		h := r.PostHandler(PostConfig{})
		for i := range maxPosters + 1 {
			want := 202
			if i == maxPosters {
				want = 503
			}
			if w := ask(h, token, `{"text":"a"}`, fmt.Sprintf("192.0.%d.%d:1", i/250, i%250)); w.Code != want {
				t.Fatalf("address %d: %d %s", i, w.Code, w.Body)
			}
		}
		if w := ask(other.PostHandler(PostConfig{}), second, `{"text":"a"}`, "198.51.100.7:1"); w.Code != 503 {
			t.Errorf("in another room: %d %s", w.Code, w.Body)
		}
		_ = other.Shutdown(t.Context())
		_ = r.Shutdown(t.Context())
		if n := r.cfg.Requesting.Load(); n != 0 {
			t.Errorf("%d are counted after all have left", n)
		}
	})
}

// Requests at the moment at which their poster leaves are admitted all the
// same.
func TestPosterLeavesMeanwhile(t *testing.T) {
	log, err := history.Open(t.Context(), history.Config{Keep: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	r, token := newTestRelay(t, Config{Log: log, PublishRate: 1e6, PublishBurst: 1e6})
	h := r.PostHandler(PostConfig{})
	var stored atomic.Int64
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for range 200 {
				if w := ask(h, token, `{"text":"a"}`, ""); w.Code == 202 {
					stored.Add(1)
				} else {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
	leaving := make(chan struct{})
	done.Go(func() {
		for stored.Load() < 400 {
			r.posters.mu.Lock()
			all := map[posterKey]*poster{}
			for key, p := range r.posters.entries {
				all[key] = p
			}
			r.posters.mu.Unlock()
			for key, p := range all {
				r.posters.leave(key, p, codeNormal)
			}
		}
		close(leaving)
	})
	done.Wait()
	<-leaving
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n := log.Position().Seq(); n != 800 || len(r.cfg.Gate.Sessions()) != 0 {
		t.Errorf("%d messages stored, and %d sessions left", n, len(r.cfg.Gate.Sessions()))
	}
}
