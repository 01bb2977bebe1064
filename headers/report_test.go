package headers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relayguard/relayguard/headers"
)

const (
	legacy  = "application/csp-report"
	modern  = "application/reports+json"
	secret  = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"
	example = `{"csp-report":{"document-uri":"https://relay.example/view?token=` + secret + `","referrer":"https://` + secret + `.example/",
		"violated-directive":"script-src-elem","effective-directive":"script-src-elem","original-policy":"default-src 'none'; ` + secret + `",
		"disposition":"report","blocked-uri":"https://Evil.example:8443/x?` + secret + `","line-number":7,"source-file":"` + secret + `","script-sample":"` + secret + `"}}`
	exampleModern = `[{"type":"csp-violation","age":2,"url":"https://u:` + secret + `@relay.example/view?token=` + secret + `","user_agent":"` + secret + `",
		"body":{"documentURL":"https://relay.example/view","disposition":"enforce","effectiveDirective":"img-src","blockedURL":"inline","sample":"` + secret + `"}},
		{"type":"coep","url":"https://relay.example/","body":{"blockedURL":"https://cdn.example/a.png","disposition":"reporting","type":"corp"}}]`
)

func TestParseReports(t *testing.T) {
	csp := func(directive, blocked, page string) string {
		return fmt.Sprintf(`{"csp-report":{"effective-directive":%q,"blocked-uri":%q,"document-uri":%q}}`, directive, blocked, page)
	}
	v := func(directive, blocked, page string) []headers.Violation {
		return []headers.Violation{{Kind: "csp-violation", Directive: directive, Blocked: blocked, Page: page}}
	}
	tests := []struct {
		why, contentType, body string
		want                   []headers.Violation // nil if there is an error
	}{
		{"report-uri, everything but origin and path dropped", legacy, example,
			[]headers.Violation{{Kind: "csp-violation", Directive: "script-src-elem", Blocked: "https://evil.example:8443", Page: "/view", ReportOnly: true}}},
		{"Reporting API", modern + "; charset=utf-8", exampleModern, []headers.Violation{
			{Kind: "csp-violation", Directive: "img-src", Blocked: "inline", Page: "/view"},
			{Kind: "coep", Blocked: "https://cdn.example", Page: "/", ReportOnly: true}}},
		{"older browsers send the whole directive", legacy, `{"csp-report":{"violated-directive":"img-src 'self'","blocked-uri":"data"}}`, v("img-src", "data", "other")},
		{"a kind of tomorrow", modern, `[{"type":"` + secret + `","url":"https://a.example/"}]`, []headers.Violation{{Kind: "other", Page: "/"}}},
		{"no report", modern, `[]`, []headers.Violation{}},
		{"a directive that does not exist", legacy, csp("x\nlevel=ERROR", "eval", "https://a.example/"), v("other", "eval", "/")},
		{"an extension, the most frequent noise", legacy, csp("img-src", "chrome-extension://abcdef/x.js", "https://a.example/"), v("img-src", "extension", "/")},
		{"data with its content", legacy, csp("img-src", "data:image/png;base64,AAAA", "https://a.example/"), v("img-src", "data", "/")},
		{"another scheme", legacy, csp("img-src", "ftp://a.example/", "https://a.example/"), v("img-src", "other", "/")},
		{"a host that is none", legacy, csp("img-src", "https://a b\n/", "https://a.example/"), v("img-src", "other", "/")},
		{"a host that would fill the log", legacy, csp("img-src", "https://"+strings.Repeat("a", 300)+"/", "https://a.example/"), v("img-src", "other", "/")},
		{"markup in the path", legacy, csp("img-src", "", "https://a.example/<script>"), v("img-src", "", "other")},
		{"an escaped line break in the path", legacy, csp("img-src", "", "https://a.example/%0aFAKE"), v("img-src", "", "other")},

		{"nothing", legacy, ``, nil},
		{"not JSON", legacy, `csp-report`, nil},
		{"another object", legacy, `{"a":1}`, nil},
		{"null", legacy, `{"csp-report":null}`, nil},
		{"wrong types", legacy, `{"csp-report":{"blocked-uri":1}}`, nil},
		{"one report where a list belongs", modern, `{"type":"csp-violation"}`, nil},
		{"deep", modern, strings.Repeat("[", 20000), nil},
		{"JSON by another name", "application/json", example, nil},
		{"no type", "", example, nil},
	}
	for _, tt := range tests {
		got, err := headers.ParseReports(tt.contentType, []byte(tt.body))
		if (err != nil) != (tt.want == nil) || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: got %+v, %v, want %+v", tt.why, got, err, tt.want)
		}
	}
}

func reporter(t *testing.T, cfg headers.ReportConfig) *headers.ReportHandler {
	t.Helper()
	h, err := headers.NewReportHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The handler gives the same answer to every request, and still counts later
// reports.
func TestReportHandlerAlwaysAnswers204(t *testing.T) {
	h := reporter(t, headers.ReportConfig{MaxBody: 4096})
	s := httptest.NewServer(h)
	defer s.Close()
	big := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		why, method, contentType string
		body                     io.Reader
	}{
		{"a report", "POST", legacy, strings.NewReader(example)},
		{"a list", "POST", modern, strings.NewReader(exampleModern)},
		{"too long, and says so", "POST", legacy, strings.NewReader(big)},
		{"too long, in chunks", "POST", legacy, io.MultiReader(strings.NewReader(big))},
		{"garbage", "POST", legacy, strings.NewReader("{")},
		{"no type", "POST", "", strings.NewReader("{")},
		{"a browser's preflight", "OPTIONS", "", nil},
		{"somebody curious", "GET", "", nil},
		{"somebody more curious", "DELETE", legacy, strings.NewReader(example)},
	} {
		req, err := http.NewRequest(tt.method, s.URL, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", tt.contentType)
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusNoContent || len(body) != 0 {
			t.Errorf("%s: got %s and %q, want 204", tt.why, res.Status, body)
		}
	}
	got := h.Stats()
	if got.Accepted != 3 || got.Oversize != 2 || got.Malformed != 2 || len(got.Violations) != 3 {
		t.Errorf("got %+v, want 3 accepted, 2 oversize, 2 malformed", got)
	}
}

func TestDefaultBodyCap(t *testing.T) {
	h := reporter(t, headers.ReportConfig{})
	for _, n := range []int{64 << 10, 64<<10 + 1} {
		body := example + strings.Repeat(" ", n-len(example))
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", legacy)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if got := h.Stats(); got.Accepted != 1 || got.Oversize != 1 {
		t.Errorf("got %+v, want the cap at 64 KiB", got)
	}
}

func report(n int) []byte {
	return fmt.Appendf(nil, `{"csp-report":{"effective-directive":"img-src","blocked-uri":"https://h%d.example/"}}`, n)
}

func TestReportsAreBounded(t *testing.T) {
	var told []headers.Violation
	h := reporter(t, headers.ReportConfig{Rate: 1, Burst: 10, MaxDistinct: 3, Window: time.Minute,
		OnViolation: func(v headers.Violation) { told = append(told, v) }})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 12 {
		h.ReceiveAt(legacy, report(i%5), start)
	}
	// The burst admits ten: 0 1 2 3 4 0 1 2 3 4. For 3 and 4 the table is full.
	got := h.StatsAt(start)
	if got.Accepted != 6 || got.Overflow != 4 || got.Throttled != 2 || len(got.Violations) != 3 || len(told) != 3 {
		t.Errorf("got %+v and %d told, want 6 accepted, 4 overflowed, 2 throttled, 3 told once each", got, len(told))
	}
	for _, v := range got.Violations {
		if v.Count != 2 || !v.First.Equal(start) || !v.Last.Equal(start) {
			t.Errorf("got %+v, want a count of 2", v)
		}
	}
	// One second adds one token. One minute begins a new window.
	h.ReceiveAt(legacy, report(0), start.Add(time.Second))
	h.ReceiveAt(legacy, report(0), start.Add(time.Second))
	if got = h.StatsAt(start.Add(time.Second)); got.Accepted != 7 || got.Throttled != 3 || got.Violations[0].Count != 3 {
		t.Errorf("after a second: got %+v", got)
	}
	if got = h.StatsAt(start.Add(time.Minute)); len(got.Violations) != 0 || got.Accepted != 7 {
		t.Errorf("after the window: got %+v, want totals alone", got)
	}
	h.ReceiveAt(legacy, report(4), start.Add(time.Minute))
	if got = h.StatsAt(start.Add(time.Minute)); len(got.Violations) != 1 || len(told) != 4 {
		t.Errorf("in the next window: got %+v and %d told", got, len(told))
	}
}

// Each report of a list counts against the rate, so one request cannot exceed
// it.
func TestRateCountsReportsNotRequests(t *testing.T) {
	h := reporter(t, headers.ReportConfig{Burst: 5})
	now := time.Now()
	h.ReceiveAt(modern, []byte("["+strings.Repeat(`{"type":"coop","url":"https://a.example/"},`, 99)+`{}]`), now)
	if got := h.StatsAt(now); got.Accepted != 5 || got.Throttled != 95 {
		t.Errorf("got %+v, want 5 accepted", got)
	}
	// A malformed body counts against the rate too, since parsing it costs
	// time.
	h = reporter(t, headers.ReportConfig{Burst: 2})
	for range 5 {
		r := httptest.NewRequest("POST", "/", strings.NewReader("{"))
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if got := h.Stats(); got.Malformed != 2 || got.Throttled != 3 {
		t.Errorf("got %+v, want 2 looked at", got)
	}
}

// No text that the sender chose freely may reach the log or the counts.
func TestReportsAreNotTrusted(t *testing.T) {
	var lines bytes.Buffer
	h := reporter(t, headers.ReportConfig{Log: slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	for _, r := range [][2]string{{legacy, example}, {modern, exampleModern}, {legacy, secret}, {secret, example},
		{legacy, `{"csp-report":{"effective-directive":"` + secret + `","blocked-uri":"` + secret + `:","document-uri":"` + secret + `"}}`},
		{modern, `[{"type":"a\nlevel=ERROR msg=forged","url":"https://a.example/\nlevel=ERROR"}]`}} {
		h.Receive(r[0], []byte(r[1]))
	}
	shown, _ := json.Marshal(h.Stats())
	for _, text := range []string{lines.String(), string(shown)} {
		for _, bad := range []string{secret, strings.ToLower(secret), "forged", "level=ERROR", "token"} {
			if strings.Contains(text, bad) {
				t.Errorf("%q found in %s", bad, text)
			}
		}
	}
	if n := strings.Count(lines.String(), "\n"); n != 6 {
		t.Errorf("%d log lines, want one for each of 5 violations, and one for the malformed:\n%s", n, &lines)
	}
}

func TestReportHandlerConcurrently(t *testing.T) {
	h := reporter(t, headers.ReportConfig{Rate: 1e9, Burst: 1e9, MaxDistinct: 10})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				h.Receive(legacy, report(i%20))
				h.Stats()
			}
		})
	}
	wg.Wait()
	if got := h.Stats(); got.Accepted != 800 || got.Overflow != 800 || len(got.Violations) != 10 {
		t.Errorf("got %+v, want every report accepted or overflowed", got)
	}
}

func TestNewReportHandlerRefuses(t *testing.T) {
	_, err := headers.NewReportHandler(headers.ReportConfig{MaxBody: -1, MaxOpen: -1, Rate: -1, Burst: -1, MaxDistinct: -1, Window: -1})
	if got := problems(t, err); len(got) != 6 || !errors.Is(err, headers.ConfigNegative) {
		t.Errorf("got %v, want six refusals", err)
	}
}

func FuzzParseReports(f *testing.F) {
	f.Add(legacy, []byte(example))
	f.Add(modern, []byte(exampleModern))
	f.Add(legacy, report(1))
	f.Add(modern, []byte(safari))
	f.Add(modern, []byte(`[{"type":"permissions-policy-violation","body":{"policyId":"camera"}},{"csp-report":{}},"]\\\"[",null]`))
	f.Add(modern, []byte(`[{"type":"coep","body":{"blockedURL":"moz-extension://x","disposition":"reporting"}}]`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		vs, err := headers.ParseReports(contentType, body)
		if err != nil && vs != nil {
			t.Fatal("violations beside an error")
		}
		var list []any
		if json.Unmarshal(body, &list) == nil && err == nil && list != nil && len(vs) != min(len(list), 100) {
			t.Fatalf("%d violations of a list of %d", len(vs), len(list))
		}
		for _, v := range vs {
			for _, s := range []string{v.Kind, v.Directive, v.Blocked, v.Page} {
				if len(s) > 120 || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._:/[]") != "" {
					t.Fatalf("%q came through", s)
				}
			}
		}
	})
}
