package examples_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/envcheck"
	"github.com/relayguard/relayguard/examples/device/llm"
	"github.com/relayguard/relayguard/examples/device/publish"
	"github.com/relayguard/relayguard/examples/internal/wire"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/tracker"
	"github.com/relayguard/relayguard/wsauth/jwtauth"
)

// TestOutgoingClients holds that every HTTP client of this module is made by
// internal/client, which refuses redirects to other servers. A RoundTripper
// that is called directly follows none.
func TestOutgoingClients(t *testing.T) {
	clients := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "interop" || path == "services" || path == filepath.Join("internal", "client")):
			return filepath.SkipDir // tests against other libraries, programs to copy, and the constructor
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		made := map[ast.Node]bool{} // arguments of client.New
		ast.Inspect(f, func(n ast.Node) bool {
			bad := ""
			switch n := n.(type) {
			case *ast.CallExpr:
				if selects(n.Fun, "client", "New") {
					clients++
					ast.Inspect(n.Args[0], func(n ast.Node) bool { made[n] = true; return true })
				}
				for _, name := range []string{"Get", "Head", "Post", "PostForm"} {
					if selects(n.Fun, "http", name) {
						bad = "http." + name
					}
				}
			case *ast.CompositeLit:
				if selects(n.Type, "http", "Client") && !made[n] {
					bad = "http.Client"
				}
				if selects(n.Type, "websocket", "DialOptions") && !sets(n, "HTTPClient") {
					bad = "websocket.DialOptions without HTTPClient"
				}
			case *ast.SelectorExpr:
				if selects(n, "http", "DefaultClient") {
					bad = "http.DefaultClient"
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && id.Name == "CheckRedirect" {
					bad = "CheckRedirect"
				}
			}
			if bad != "" {
				t.Errorf("%s: %s: use client.New of examples/internal/client", fset.Position(n.Pos()), bad)
			}
			return true
		})
		return nil
	})
	if err != nil || clients < 5 {
		t.Errorf("%v after %d clients, want at least those of the device and the tracker; the operator's calls are a RoundTripper's", err, clients)
	}
}

func selects(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == pkg
}

func sets(c *ast.CompositeLit, field string) bool {
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == field {
				return true
			}
		}
	}
	return false
}

// TestRedirectsGetNoSecret lets every client of the module meet a server that
// redirects it to another port, with each status.
func TestRedirectsGetNoSecret(t *testing.T) {
	const secret = "canary7731"
	// met is closed when the first server was asked.
	clients := map[string]func(ctx context.Context, t *testing.T, url string, met <-chan struct{}){
		"the device's handshake": func(ctx context.Context, _ *testing.T, url string, _ <-chan struct{}) {
			_ = publish.Run(ctx, publish.Config{
				URL: "ws" + strings.TrimPrefix(url, "http") + "/ws", Source: silent{},
				Tokens: publish.TokenFunc(func() (string, error) { return secret, nil }),
			})
		},
		"the device's refresh": func(ctx context.Context, t *testing.T, url string, _ <-chan struct{}) {
			// A token file belongs to one device.
			file := filepath.Join(t.TempDir(), "token.json")
			err := os.WriteFile(file, []byte(`{"token":"`+secret+`","refresh_token":"`+secret+`"}`), 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			c, err := publish.NewCredential(publish.CredentialConfig{File: file, RefreshURL: url + "/auth/refresh"})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := c.Refresh(ctx, publish.Token{Value: secret}); err == nil {
				t.Error("a redirect gave a token")
			}
		},
		"the model": func(ctx context.Context, t *testing.T, url string, _ <-chan struct{}) {
			thinker := &llm.Thinker{
				Model:   &llm.Model{URL: url, Name: "m", APIKey: envcheck.NewSecret(secret)},
				Prompt:  secret,
				Figures: func() *wire.Memory { return nil },
			}
			for ctx.Err() == nil {
				_, _ = thinker.Next(ctx)
			}
		},
		"the operator": func(ctx context.Context, t *testing.T, url string, _ <-chan struct{}) {
			c := &operate.Client{Addr: strings.TrimPrefix(url, "http://"), Secrets: []jwtauth.Key{{Secret: []byte(secret)}}}
			_, _ = c.Blocks(ctx)
		},
		"the error tracker": func(ctx context.Context, t *testing.T, url string, met <-chan struct{}) {
			tr, err := tracker.New(tracker.Config{DSN: strings.Replace(url, "http://", "http://"+secret+"@", 1) + "/1"})
			if err != nil {
				t.Error(err)
				return
			}
			tr.Send("something", nil)
			select { // Close waits only a moment
			case <-met:
			case <-ctx.Done():
			}
			tr.Close()
		},
	}
	for name, use := range clients {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					t.Errorf("%s %s was sent to another server (%d)", r.Method, r.URL, status)
				}))
				defer other.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var mu sync.Mutex
				asked, met := 0, make(chan struct{})
				first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					// The second request is one after the redirect of the first
					// was over.
					switch asked++; asked {
					case 1:
						close(met)
					case 2:
						defer cancel()
					}
					http.Redirect(w, r, other.URL+r.URL.Path, status)
				}))
				defer first.Close()
				use(ctx, t, first.URL, met)
				if mu.Lock(); asked == 0 {
					t.Error("the server was not asked")
				}
				mu.Unlock()
			})
		}
	}
}

// silent is a source without a message.
type silent struct{}

func (silent) Next(ctx context.Context) (wire.Message, error) {
	<-ctx.Done()
	return wire.Message{}, ctx.Err()
}
