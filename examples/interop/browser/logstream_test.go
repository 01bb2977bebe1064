package browser_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/examples/internal/testkit"
	"github.com/relayguard/relayguard/internal/freeport"
)

// TestLogStream follows a log on the page of the log streamer. The browser
// connects again by itself after a broken connection, shows each line once, and
// stops at the end.
func TestLogStream(t *testing.T) {
	chromium(t)
	program := filepath.Join(t.TempDir(), "logstream")
	build := exec.Command("go", "build", "-o", program, "./examples/services/logstream")
	build.Dir = "../../.." // its own module, with its own versions
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := freeport.Addr(t)
	service := exec.Command(program, "-addr", addr)
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Process.Kill(); service.Wait() })
	post := func(path, text string) error {
		resp, err := http.Post("http://"+addr+path, "text/plain", strings.NewReader(text))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 204 {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return nil
	}
	testkit.Eventually(t, "the service answers", func() bool { return post("/logs/build-7", "<b>one</b>\n\n") == nil })

	// The browser is behind a proxy, which can break its connections.
	front := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr}))
	defer front.Close()
	b := open(t, front.URL+"/?log=build-7")
	shown := "<b>one</b>\n\n"
	b.holds("the history", fmt.Sprintf("log.textContent === %q", shown))
	for i := range 3 {
		text := fmt.Sprintf("line %d\n", i)
		if err := post("/logs/build-7", text); err != nil {
			t.Fatal(err)
		}
		shown += text
		b.holds("what is appended", fmt.Sprintf("log.textContent === %q", shown))
		front.CloseClientConnections()
	}
	if err := post("/logs/build-7/end", ""); err != nil {
		t.Fatal(err)
	}
	b.holds("the end", "source.readyState === EventSource.CLOSED")
	b.holds("each line once", fmt.Sprintf("log.textContent === %q", shown))
	resp, err := http.Get("http://" + addr + "/logs/build-7")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "data: \n\n") {
		t.Errorf("the whole stream: %q, %v", body, err)
	}
}
