package frameworks_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chiware "github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/sse"
)

// TestStreams sends a log under each framework, with middleware of that
// framework and of this library around it.
func TestStreams(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	limiter, secure := guards(t)
	for _, row := range []struct {
		name  string
		under func(h http.Handler) http.Handler
	}{
		{"chi", func(h http.Handler) http.Handler {
			r := chi.NewRouter()
			r.Use(chiware.Logger, chiware.Recoverer)
			r.Method("GET", "/", h)
			return r
		}},
		{"gin", func(h http.Handler) http.Handler {
			r := gin.New()
			r.Use(gin.Recovery())
			r.GET("/", gin.WrapH(h))
			return r
		}},
		{"echo", func(h http.Handler) http.Handler {
			r := echo.New()
			r.GET("/", echo.WrapHandler(h))
			return r
		}},
		{"headers, limiter and a wrapper", func(h http.Handler) http.Handler {
			return secure.Handler(limiter.Handler(wrap(h)))
		}},
	} {
		log, err := history.Open(t.Context(), history.Config{})
		if err != nil {
			t.Fatal(err)
		}
		events, err := sse.New(sse.Config{})
		if err != nil {
			t.Fatal(err)
		}
		log.Append(t.Context(), []byte("hello"))
		served := make(chan error, 1)
		server := httptest.NewServer(row.under(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served <- events.Serve(w, r, log)
		})))
		resp, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		// The head has arrived while the log goes on.
		log.Append(context.Background(), []byte("world"))
		log.Finish(context.Background())
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		text := string(body)
		if err != nil || !strings.Contains(text, "data: hello\n\n") || !strings.Contains(text, "data: world\n\n") || !strings.Contains(text, "event: end\n") {
			t.Errorf("%s: %s, %q, %v", row.name, resp.Status, text, err)
		}
		if got := resp.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", row.name, got)
		}
		if err := <-served; err != nil {
			t.Errorf("%s: Serve returned %v", row.name, err)
		}
		server.Close()
	}
}
