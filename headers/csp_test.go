package headers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/headers"
)

const (
	sha256Source = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
	sha512Source = "'sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=='"
)

func TestParseCSP(t *testing.T) {
	tests := []struct {
		why, in, want string // want is empty if it equals in
	}{
		{"the usual", "default-src 'none'; script-src 'self'", ""},
		{"prefixes of hashes in any case, digests as they are", "script-src 'SHA256-" + sha256Source[8:] + " 'Strict-Dynamic'", "script-src " + sha256Source + " 'strict-dynamic'"},
		{"tokens of a sandbox in any case", "sandbox Allow-Scripts ALLOW-FORMS", "sandbox allow-scripts allow-forms"},
		{"names and keywords in any case, loose spaces", " Default-SRC  'NONE' ;;\timg-src\n'Self' ;", "default-src 'none'; img-src 'self'"},
		{"no policy", "", ""},
		{"no policy", " ; ;", ""},
		{"flags", "upgrade-insecure-requests; sandbox; sandbox", "!" + string(headers.ReasonDuplicate)},
		{"sandbox tokens", "sandbox allow-scripts allow-same-origin", ""},
		{"hosts", "img-src a.example *.b.example https://c.example:8443/dir/ *:* wss://d.example http://127.0.0.1:1", ""},
		{"schemes", "img-src data: blob: https: custom+x-1.2:", ""},
		{"escaped separators in a path", "img-src https://a.example/x%3By%2Cz", ""},
		{"hashes and strict-dynamic", "script-src 'strict-dynamic' " + sha256Source + " " + sha512Source, ""},
		{"URL-safe hash", "style-src " + strings.NewReplacer("+", "-", "/", "_").Replace(sha256Source), ""},
		{"nonce", "script-src 'nonce' 'strict-dynamic'; style-src 'nonce'", ""},
		{"trusted types", "require-trusted-types-for 'script'; trusted-types a b#c 'allow-duplicates'", ""},
		{"reports", "report-uri /csp https://r.example/x?y; report-to csp", ""},
		{"webrtc", "webrtc 'block'", ""},
		{"wasm", "script-src 'self' 'wasm-unsafe-eval' 'report-sample'; script-src-attr 'none'", ""},

		{"a typo", "scriptsrc 'self'", "!" + string(headers.ReasonUnknown)},
		{"gone from the standard", "plugin-types application/pdf", "!" + string(headers.ReasonUnknown)},
		{"deprecated", "block-all-mixed-content", "!" + string(headers.ReasonUnknown)},
		{"the first would win silently", "img-src 'self'; IMG-SRC *", "!" + string(headers.ReasonDuplicate)},
		{"twice", "img-src data: data:", "!" + string(headers.ReasonDuplicate)},
		{"a host called self", "script-src self", "!" + string(headers.ReasonUnquoted)},
		{"a host called none", "object-src none", "!" + string(headers.ReasonUnquoted)},
		{"a host called nonce-x", "script-src nonce-abc", "!" + string(headers.ReasonUnquoted)},
		{"a host called sha256-…", "script-src sha256-abc", "!" + string(headers.ReasonUnquoted)},
		{"a host called data", "img-src data", "!" + string(headers.ReasonColon)},
		{"typographic quotes", "script-src ‘self’", "!" + string(headers.ReasonCharacter)},
		{"a keyword that is none", "script-src 'unsafe-everything'", "!" + string(headers.ReasonValue)},
		{"half quoted", "script-src 'self", "!" + string(headers.ReasonValue)},
		{"not base64", "script-src 'sha256-!!!'", "!" + string(headers.ReasonValue)},
		{"wrong length", "script-src 'sha512-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='", "!" + string(headers.ReasonValue)},
		{"a scheme in capitals", "img-src DATA", "!" + string(headers.ReasonColon)},
		{"a fixed nonce in capitals", "script-src 'NONCE-2726c7f26c'", "!" + string(headers.ReasonFixedNonce)},
		{"a hash in capitals without quotes", "script-src SHA256-abc", "!" + string(headers.ReasonUnquoted)},
		{"copied from a tutorial", "script-src 'nonce-2726c7f26c'", "!" + string(headers.ReasonFixedNonce)},
		{"contradiction", "img-src 'none' data:", "!" + string(headers.ReasonNotAlone)},
		{"allows nothing", "script-src 'self' 'strict-dynamic'", "!" + string(headers.ReasonDynamic)},
		{"no fallback to 'none' by accident", "script-src", "!" + string(headers.ReasonEmpty)},
		{"a flag with a value", "upgrade-insecure-requests 1", "!" + string(headers.ReasonExtra)},
		{"one group only", "report-to a b", "!" + string(headers.ReasonExtra)},
		{"images execute nothing", "img-src 'unsafe-inline'", "!" + string(headers.ReasonMisplaced)},
		{"nonces do not reach attributes", "script-src-attr 'nonce'", "!" + string(headers.ReasonMisplaced)},
		{"a hash of what?", "img-src " + sha256Source, "!" + string(headers.ReasonMisplaced)},
		{"a frame has no eval", "frame-ancestors 'unsafe-eval'", "!" + string(headers.ReasonMisplaced)},
		{"no scheme, no host", "img-src //a.example", "!" + string(headers.ReasonSource)},
		{"a star in the middle", "img-src a.*.example", "!" + string(headers.ReasonSource)},
		{"a query", "img-src https://a.example/?x", "!" + string(headers.ReasonSource)},
		{"IPv6 is not in the grammar", "img-src [::1]", "!" + string(headers.ReasonSource)},
		{"a port too long", "img-src a.example:123456", "!" + string(headers.ReasonSource)},
		{"two policies", "img-src 'self', script-src *", "!" + string(headers.ReasonCharacter)},
		{"no such token", "sandbox allow-everything", "!" + string(headers.ReasonValue)},
		{"only 'script' exists", "require-trusted-types-for 'style'", "!" + string(headers.ReasonValue)},
		{"reports in the clear", "report-uri http://r.example/", "!" + string(headers.ReasonURL)},
		{"a name is a token", "report-to a=b", "!" + string(headers.ReasonName)},
		{"a control character", "img-src a\x00b", "!" + string(headers.ReasonCharacter)},
	}
	for _, tt := range tests {
		c, err := headers.ParseCSP(tt.in)
		if reason, refused := strings.CutPrefix(tt.want, "!"); refused {
			var e *headers.Error
			if !errors.As(err, &e) || !errors.Is(err, headers.Reason(reason)) || !strings.HasPrefix(err.Error(), "headers: ") {
				t.Errorf("%s: %q: got %q, %v, want an error: %s", tt.why, tt.in, c, err, reason)
			}
			continue
		}
		want := tt.want
		if want == "" && strings.Trim(tt.in, " ;") != "" {
			want = tt.in
		}
		if err != nil || c.String() != want {
			t.Errorf("%s: %q: got %q, %v, want %q", tt.why, tt.in, c, err, want)
		}
	}
}

// New checks a CSP made by With as strictly as ParseCSP checks a text.
func TestInjectionThroughWith(t *testing.T) {
	for _, c := range []headers.CSP{
		headers.CSP{}.With("img-src; script-src *"),
		headers.CSP{}.With("img-src", "'self'; script-src *"),
		headers.CSP{}.With("img-src", "a.example\r\nSet-Cookie: x=y"),
		headers.CSP{}.With("img-src", "'self' *"),
		headers.CSP{}.With("img-src", ""),
		headers.CSP{}.With("", headers.Self),
		headers.CSP{}.With("report-uri", "/x; script-src *"),
		headers.CSP{}.With("report-to", "a; script-src"),
		headers.CSP{}.With("sandbox", "allow-scripts; script-src"),
	} {
		if _, err := headers.New(headers.Policy{CSP: c}); err == nil {
			t.Errorf("New accepts %q", c)
		}
	}
}

func TestCSPIsImmutable(t *testing.T) {
	list := []headers.Source{headers.Self}
	base := headers.CSP{}.With("default-src", headers.None).With("img-src", list...)
	list[0] = headers.Any
	got, _ := base.Sources("img-src")
	got[0] = headers.Any
	for _, all := range base.All() {
		all[0] = headers.Any
	}
	_ = base.With("img-src", headers.Any).With("font-src", headers.Any)
	_ = base.With("script-src", headers.Any)
	_ = base.Add("img-src", headers.Any).Add("default-src", headers.Any)
	_ = base.Without("default-src")
	if want := "default-src 'none'; img-src 'self'"; base.String() != want {
		t.Errorf("got %q, want %q", base, want)
	}
}

func TestCSPEditing(t *testing.T) {
	c := headers.CSP{}.With("default-src", headers.None).With("img-src", headers.Self)
	c = c.With("IMG-SRC", headers.Self, "data:").With("style-src", headers.Self)
	if want := "default-src 'none'; img-src 'self' data:; style-src 'self'"; c.String() != want {
		t.Errorf("got %q, want %q", c, want)
	}
	c = c.Without("Img-Src", "absent")
	if want := "default-src 'none'; style-src 'self'"; c.String() != want {
		t.Errorf("got %q, want %q", c, want)
	}
	if _, ok := c.Sources("img-src"); ok {
		t.Error("img-src is still there, or default-src stood in for it")
	}
	if !c.Without("default-src", "style-src").IsZero() {
		t.Error("a policy without directives is not zero")
	}
}

func TestAdd(t *testing.T) {
	for _, tt := range []struct {
		why, before, name string
		sources           []headers.Source
		want              string
	}{
		{"beside the others", "img-src 'self'", "img-src", []headers.Source{"data:"}, "img-src 'self' data:"},
		{"in any case, and once", "img-src 'self' data:", "IMG-SRC", []headers.Source{"'SELF'", "data:", "blob:", "blob:"}, "img-src 'self' data: blob:"},
		{"'none' goes", "img-src 'none'", "img-src", []headers.Source{"data:"}, "img-src data:"},
		{"'none' adds nothing", "img-src 'self'", "img-src", []headers.Source{headers.None}, "img-src 'self'"},
		{"'none' stays alone", "img-src 'none'", "img-src", []headers.Source{headers.None}, "img-src 'none'"},
		{"what default-src allowed stays allowed", "default-src 'self'", "img-src", []headers.Source{"data:"}, "default-src 'self'; img-src 'self' data:"},
		{"default-src allows nothing", "default-src 'none'", "font-src", []headers.Source{"https://f.example"}, "default-src 'none'; font-src https://f.example"},
		{"nothing restricts it", "img-src 'self'", "font-src", []headers.Source{"https://f.example"}, "img-src 'self'; font-src https://f.example"},
		{"script elements fall back to scripts", "script-src 'self'; default-src https:", "script-src-elem", []headers.Source{"https://a.example"}, "script-src 'self'; default-src https:; script-src-elem 'self' https://a.example"},
		{"style attributes fall back to styles", "style-src 'self'", "style-src-attr", []headers.Source{"'unsafe-inline'"}, "style-src 'self'; style-src-attr 'self' 'unsafe-inline'"},
		{"workers fall back to scripts", "script-src 'self' 'nonce'", "worker-src", []headers.Source{"blob:"}, "script-src 'self' 'nonce'; worker-src 'self' blob:"},
		{"frames fall back to children", "child-src 'self'; default-src 'none'", "frame-src", []headers.Source{"https://a.example"}, "child-src 'self'; default-src 'none'; frame-src 'self' https://a.example"},
		{"workers keep what they have by scripts", "default-src 'none'; script-src 'self' 'nonce'", "child-src", []headers.Source{"https://a.example"}, "default-src 'none'; script-src 'self' 'nonce'; worker-src 'self' https://a.example; child-src https://a.example"},
		{"or by themselves", "script-src 'self'; worker-src blob:", "child-src", []headers.Source{"https://a.example"}, "script-src 'self'; worker-src blob:; child-src https://a.example"},
		{"fenced frames fall back to frames", "frame-src 'self'", "fenced-frame-src", []headers.Source{"https://a.example"}, "frame-src 'self'; fenced-frame-src 'self' https://a.example"},
		{"keywords without a meaning there are left out", "default-src 'self' 'unsafe-inline' 'nonce'", "img-src", []headers.Source{"data:"}, "default-src 'self' 'unsafe-inline' 'nonce'; img-src 'self' data:"},
		{"forms have no fallback", "default-src 'self'", "form-action", []headers.Source{"https://a.example"}, "default-src 'self'; form-action https://a.example"},
		{"tokens of a sandbox", "sandbox allow-forms", "sandbox", []headers.Source{"allow-scripts"}, "sandbox allow-forms allow-scripts"},
		{"a flag", "img-src 'self'", "upgrade-insecure-requests", nil, "img-src 'self'; upgrade-insecure-requests"},
	} {
		before, err := headers.ParseCSP(tt.before)
		if err != nil {
			t.Fatal(err)
		}
		got := before.Add(tt.name, tt.sources...)
		if got.String() != tt.want || before.String() != tt.before {
			t.Errorf("%s: got %q, want %q", tt.why, got, tt.want)
		}
		must(t, headers.Policy{CSP: got})
	}
	// Add hides no mistake from New.
	for _, c := range []headers.CSP{
		headers.CSP{}.Add("img-src", "self"), headers.CSP{}.Add("imgsrc", headers.Self), headers.CSP{}.Add("img-src", ""),
	} {
		if _, err := headers.New(headers.Policy{CSP: c}); err == nil {
			t.Errorf("New accepts %q", c)
		}
	}
}

func FuzzParseCSP(f *testing.F) {
	for _, seed := range []string{
		headers.Strict().CSP.String(), headers.Baseline().CSP.String(), "sandbox; webrtc 'block'",
		"script-src 'nonce' 'strict-dynamic' " + sha256Source, "img-src a.example *.b.example https://c.example:8443/dir/ *:*",
		"report-uri /csp?'nonce'; report-to csp", "trusted-types 'none'", "img-src self;;\x00", "img-src 'self', script-src *",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := headers.ParseCSP(text)
		if err != nil {
			if !c.IsZero() {
				t.Fatal("a policy beside an error")
			}
			return
		}
		s := c.String()
		if strings.ContainsAny(s, "\r\n,\x00") {
			t.Fatalf("%q cannot be sent", s)
		}
		again, err := headers.ParseCSP(s)
		if err != nil || again.String() != s {
			t.Fatalf("%q becomes %q, %v", s, again, err)
		}
		// New accepts every CSP that ParseCSP accepts, except for the endpoint,
		// which another header defines.
		_, err = headers.New(headers.Policy{CSP: c.Without("report-to")})
		if err != nil {
			t.Fatalf("New refuses what ParseCSP accepts: %v", err)
		}
	})
}

// With and ParseCSP accept the same spellings.
func TestWithFoldsCase(t *testing.T) {
	got := headers.CSP{}.
		With("Script-Src", "'SELF'", "'NONCE'", headers.Source("'SHA256-"+sha256Source[8:]), "'Unsafe-Hashes'").
		With("sandbox", "Allow-Scripts").With("img-src", "https://A.example/Path")
	want := "script-src 'self' 'nonce' " + sha256Source + " 'unsafe-hashes'; sandbox allow-scripts; img-src https://A.example/Path"
	if got.String() != want {
		t.Errorf("got %s, want %s", got, want)
	}
	must(t, headers.Policy{CSP: got})
}
