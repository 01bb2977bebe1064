package headers_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relayguard/relayguard/headers"
)

// safari is the one report, outside of a list, that WebKit sends.
const safari = `{"type":"csp-violation","url":"https://art.example/hall?x=1","body":{"documentURL":"https://art.example/hall",` +
	`"disposition":"enforce","effectiveDirective":"script-src-elem","blockedURL":"inline","statusCode":200}}`

// Browsers do not agree which form of report has which content type, so every
// form is read under both.
func TestFormsOfReports(t *testing.T) {
	one := headers.Violation{Kind: "csp-violation", Directive: "script-src-elem", Blocked: "inline", Page: "/hall"}
	const old = `{"csp-report":{"document-uri":"https://art.example/hall","effective-directive":"script-src-elem","blocked-uri":"inline"}}`
	for _, tt := range []struct {
		why, body string
		want      []headers.Violation // nil if there is an error
	}{
		{"report-uri in Chromium and Firefox", old, []headers.Violation{one}},
		{"Safari: one report of the Reporting API", safari, []headers.Violation{one}},
		{"the same with space around it", "\r\n\t " + safari + "\n", []headers.Violation{one}},
		{"report-to in Chromium: a list", "[" + safari + "]", []headers.Violation{one}},
		{"a list of both forms", "[" + safari + ",\n" + old + "]", []headers.Violation{one, one}},
		{"brackets and quotes in texts", `[{"type":"x","body":{"a":"]},[\"{"}},` + safari + `]`, []headers.Violation{{Kind: "other", Page: "other"}, one}},
		{"lists in lists", `[{"type":"x","body":{"a":[[1,2],[3]]}},` + safari + `]`, []headers.Violation{{Kind: "other", Page: "other"}, one}},
		{"a body that is null", `[{"type":"crash","url":"https://a.example/","body":null}]`, []headers.Violation{{Kind: "crash", Page: "/"}}},
		{"a body of another type", `[{"type":"crash","url":"https://a.example/","body":"oom"}]`, []headers.Violation{{Kind: "crash", Page: "/"}}},
		{"an object without a type", `{"body":{"documentURL":"https://a.example/"}}`, nil},
		{"an object whose body is none", `{"type":"csp-violation","body":"x"}`, nil},
		{"a CSP report with another type of member", `[{"type":"csp-violation","body":{"blockedURL":1}}]`, nil},
		{"text after the report", safari + "x", nil},
		{"a list cut off", "[" + safari, nil},
		{"a text", `"csp-report"`, nil},
	} {
		for _, contentType := range []string{legacy, modern} {
			got, err := headers.ParseReports(contentType, []byte(tt.body))
			if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
				t.Errorf("%s as %s: got %+v, %v, want %+v", tt.why, contentType, got, err, tt.want)
			}
		}
	}
}

// Every kind of report shows the violated part of the policy and whether the
// policy is enforced.
func TestKindsOfReports(t *testing.T) {
	for _, tt := range []struct {
		kind, body string
		want       headers.Violation // without Kind and Page
	}{
		{"permissions-policy-violation", `{"policyId":"camera","disposition":"report"}`, headers.Violation{Directive: "camera", ReportOnly: true}},
		{"permissions-policy-violation", `{"featureId":"local-network-access","disposition":"enforce","lineNumber":null}`, headers.Violation{Directive: "local-network-access"}},
		{"permissions-policy-violation", `{"policyId":"browsing-topics","lineNumber":7}`, headers.Violation{Directive: "browsing-topics"}},
		{"permissions-policy-violation", `{"policyId":"` + secret + `"}`, headers.Violation{Directive: "other"}},
		{"potential-permissions-policy-violation", `{"policyId":"usb","disposition":"report"}`, headers.Violation{Directive: "usb", ReportOnly: true}},
		{"document-policy-violation", `{"policyId":"document-write","disposition":"report"}`, headers.Violation{Directive: "document-write", ReportOnly: true}},
		{"integrity-violation", `{"blockedURL":"https://cdn.example/a.js?x","destination":"script","reportOnly":true}`, headers.Violation{Blocked: "https://cdn.example", ReportOnly: true}},
		{"integrity-violation", `{"blockedURL":"https://cdn.example/a.js","reportOnly":false}`, headers.Violation{Blocked: "https://cdn.example"}},
		{"coep", `{"type":"corp","blockedURL":"https://cdn.example/a","disposition":"reporting"}`, headers.Violation{Blocked: "https://cdn.example", ReportOnly: true}},
		{"connection-allowlist", `{"connection":"https://evil.example/?x","allowlist":["https://a.example"],"disposition":"report"}`, headers.Violation{Blocked: "https://evil.example", ReportOnly: true}},
		{"connection-allowlist", `{"connection":"webrtc","disposition":"enforce"}`, headers.Violation{Blocked: "webrtc"}},
		{"coop", `{"type":"navigation-to-response","disposition":"enforce","effectivePolicy":"same-origin"}`, headers.Violation{}},
		{"csp-violation", `{"effectiveDirective":"img-src","blockedURL":"data","disposition":"report","policyId":"camera"}`, headers.Violation{Directive: "img-src", Blocked: "data", ReportOnly: true}},
		{"deprecation", `{"id":"unload","disposition":7,"lineNumber":1}`, headers.Violation{}},
	} {
		tt.want.Kind, tt.want.Page = tt.kind, "/x"
		// One report as Safari sends it, and a list; the page in either place.
		for _, report := range []string{
			fmt.Sprintf(`{"type":%q,"url":"https://a.example/x","body":%s}`, tt.kind, tt.body),
			fmt.Sprintf(`[{"type":%q,"body":{"documentURL":"https://a.example/x",%s}]`, tt.kind, tt.body[1:]),
		} {
			got, err := headers.ParseReports(modern, []byte(report))
			if err != nil || len(got) != 1 || got[0] != tt.want {
				t.Errorf("%s: got %+v, %v, want %+v", report, got, err, tt.want)
			}
		}
	}
}

// watched is a body that counts how often it is read.
type watched struct {
	io.Reader
	reads int
}

func (w *watched) Read(p []byte) (int, error) { w.reads++; return w.Reader.Read(p) }

func post(h http.Handler, contentType string, body io.Reader) {
	r := httptest.NewRequest("POST", "/csp-reports", body)
	r.Header.Set("Content-Type", contentType)
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// A request that a bound refuses is not read, so it costs nothing.
func TestLimitsComeBeforeTheBody(t *testing.T) {
	h := reporter(t, headers.ReportConfig{MaxBody: 1000, Rate: 1e-9, Burst: 5})
	for _, tt := range []struct {
		why, contentType string
		size             int
		want             headers.ReportStats
	}{
		{"not the type of a report", "text/plain", 10, headers.ReportStats{Malformed: 1}},
		{"no type", "", 10, headers.ReportStats{Malformed: 2}},
		{"a type that takes long to parse", modern + ";a=" + strings.Repeat("b", 300), 10, headers.ReportStats{Malformed: 3}},
		{"too long, and says so", modern, 1001, headers.ReportStats{Malformed: 3, Oversize: 1}},
	} {
		b := &watched{Reader: strings.NewReader(strings.Repeat(" ", tt.size))}
		r := httptest.NewRequest("POST", "/", b)
		r.ContentLength = int64(tt.size)
		r.Header.Set("Content-Type", tt.contentType)
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got := h.Stats(); b.reads > 0 || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %d reads, %+v, want %+v", tt.why, b.reads, got, tt.want)
		}
	}
	post(h, modern, strings.NewReader(safari))
	for range 10 {
		b := &watched{Reader: strings.NewReader(safari)}
		if post(h, modern, b); b.reads > 0 {
			t.Fatal("the rate is used up, and the body was read")
		}
	}
	if got := h.Stats(); got.Accepted != 1 || got.Throttled != 10 {
		t.Errorf("got %+v, want 1 accepted, 10 throttled", got)
	}
}

// At most MaxOpen requests are read at the same time, however slowly their
// senders send.
func TestRequestsUnderWayAreBounded(t *testing.T) {
	for _, tt := range []struct{ set, most int }{{0, 16}, {2, 2}} {
		synctest.Test(t, func(t *testing.T) {
			h := reporter(t, headers.ReportConfig{MaxOpen: tt.set, Burst: 1000})
			var senders []*io.PipeWriter
			for range tt.most {
				r, w := io.Pipe()
				senders = append(senders, w)
				go post(h, modern, r)
			}
			synctest.Wait() // every request waits for its body
			for range 100 {
				b := &watched{Reader: strings.NewReader(safari)}
				if post(h, modern, b); b.reads > 0 {
					t.Fatalf("more than %d requests are read", tt.most)
				}
			}
			for _, w := range senders {
				io.WriteString(w, safari)
				w.Close()
			}
			synctest.Wait()
			post(h, modern, strings.NewReader(safari))
			if got := h.Stats(); got.Accepted != uint64(tt.most)+1 || got.Throttled != 100 {
				t.Errorf("got %+v, want %d accepted and 100 throttled", got, tt.most+1)
			}
		})
	}
}

// The rate refills over time up to Burst, and no further.
func TestRateRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := reporter(t, headers.ReportConfig{Rate: 0.5, Burst: 3})
		for _, tt := range []struct {
			why      string
			after    time.Duration
			sent     int
			accepted uint64
		}{
			{"the burst", 0, 5, 3},
			{"half a token is none", time.Second, 1, 0},
			{"and half a token more is one", time.Second, 2, 1},
			{"after a long time, the burst", time.Hour, 5, 3},
		} {
			time.Sleep(tt.after)
			before := h.Stats()
			for range tt.sent {
				post(h, modern, strings.NewReader(safari))
			}
			got := h.Stats()
			if a, d := got.Accepted-before.Accepted, got.Throttled-before.Throttled; a != tt.accepted || d != uint64(tt.sent)-tt.accepted {
				t.Errorf("%s: %d accepted, %d throttled, want %d accepted of %d", tt.why, a, d, tt.accepted, tt.sent)
			}
		}
	})
}

// A clock that steps back gives no report, and does not stop the refill.
func TestRateAfterAStepBack(t *testing.T) {
	h := reporter(t, headers.ReportConfig{Rate: 1, Burst: 1})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		at   time.Duration
		want uint64
	}{{0, 1}, {-time.Hour, 1}, {-time.Hour + time.Second, 2}, {-time.Hour + time.Second, 2}} {
		h.ReceiveAt(modern, []byte(safari), start.Add(tt.at))
		if got := h.StatsAt(start).Accepted; got != tt.want {
			t.Errorf("at %v: %d accepted, want %d", tt.at, got, tt.want)
		}
	}
}

// An infinite rate is no limit.
func TestRateWithoutLimit(t *testing.T) {
	h := reporter(t, headers.ReportConfig{Rate: math.Inf(1), Burst: 1})
	now := time.Now()
	for range 100 {
		h.ReceiveAt(modern, []byte(safari), now)
	}
	if got := h.StatsAt(now); got.Accepted != 100 {
		t.Errorf("got %+v, want 100 accepted", got)
	}
}

// A body is decoded only as far as its reports count, so the work and the
// memory do not grow with the number of reports in it.
func TestReportsOfABodyAreBounded(t *testing.T) {
	list := func(element string) []byte {
		n := (64<<10 - 2) / (len(element) + 1)
		return []byte("[" + strings.Repeat(element+",", n-1) + element + "]")
	}
	for _, element := range []string{`{}`, `1`, `null`, `[]`, `{"type":"csp-violation"}`, safari} {
		body := list(element)
		vs, err := headers.ParseReports(modern, body)
		if element == "1" || element == "[]" {
			if err == nil {
				t.Errorf("%s: %d violations, want an error", element, len(vs))
			}
		} else if err != nil || len(vs) != 100 {
			t.Errorf("%s: %d violations, %v, want 100", element, len(vs), err)
		}
		if n := testing.AllocsPerRun(5, func() { headers.ParseReports(modern, body) }); n > 5000 {
			t.Errorf("%s: %v allocations, want no more than for 100 reports", element, n)
		}
	}
	// The rate bounds the reports further, and the others are still counted.
	h := reporter(t, headers.ReportConfig{Rate: 1e-9, Burst: 30})
	body := list(`{}`)
	h.Receive(modern, body)
	all := uint64(bytes.Count(body, []byte("{")))
	if got := h.Stats(); got.Accepted != 30 || got.Throttled != all-30 {
		t.Errorf("got %+v, want 30 of %d accepted, and the others throttled", got, all)
	}
}

// The first malformed request in each window is logged, without its text.
func TestMalformedIsToldOnceAWindow(t *testing.T) {
	var lines bytes.Buffer
	h := reporter(t, headers.ReportConfig{Window: time.Minute, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, want := range []int{1, 1, 1, 2, 2} {
		at := start.Add(time.Duration(i) * 20 * time.Second)
		h.ReceiveAt(modern, []byte(`{"`+secret), at)
		h.ReceiveAt(secret, []byte(secret), at)
		if got := strings.Count(lines.String(), "malformed"); got != want {
			t.Errorf("after %v: %d lines, want %d:\n%s", at.Sub(start), got, want, &lines)
		}
	}
	if strings.Contains(lines.String(), secret) || h.Stats().Malformed != 10 {
		t.Errorf("got %+v and\n%s", h.Stats(), &lines)
	}
}
