package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/apicheck"
	"github.com/relayguard/relayguard/examples/services/restapi/api"
)

func newAPI(trusted string) (http.Handler, error) {
	return api.New(api.Config{Trusted: trusted, Tenants: apicheck.Tenants, Login: apicheck.Login})
}

func TestAPI(t *testing.T) { apicheck.Run(t, newAPI) }

// Answers tell the client both limits of a login.
func TestFields(t *testing.T) {
	h, err := newAPI("none")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	resp, err := http.Post(s.URL+"/login", "application/x-www-form-urlencoded", strings.NewReader("user=alice&password=correct"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("RateLimit"); resp.StatusCode != http.StatusNoContent || got != `"address";r=9;t=60, "account";r=4;t=900` {
		t.Errorf("%s, RateLimit %q", resp.Status, got)
	}
}
