package doctor

// The checklists of the guide.
const (
	before = "pre-deployment"
	after  = "post-deployment"
)

const onMachine = "run `server check` on the machine"

// items are the lines of every report, in order. A point of the guide's two
// checklists has one item, or several if its parts can be checked one by one.
var items = []struct{ id, checklist, point, mend string }{
	{"secret", before, "Strong JWT_SECRET", onMachine},
	{"device-id", before, "ALLOWED_DEVICE_ID properly set", onMachine},
	{"production", before, "NODE_ENV=production", "set NODE_ENV=production, which switches on HSTS and the origin check"},
	{"tls.certificate", before, "HTTPS certificates installed", "install a certificate for this name with its whole chain, and see that it is renewed"},
	{"tls.redirect", before, "Plain HTTP leads to HTTPS", "redirect port 80: HTTP_REDIRECT_ADDR, or examples/deploy for nginx and Caddy; to a fixed name, not the request's"},
	{"proxy.forwarded", before, "Reverse proxy configured with proper headers", "let the proxy overwrite X-Forwarded-For, X-Real-IP and Forwarded, and name only it in TRUSTED_PROXIES"},
	{"ports.app", before, "Application port blocked", "HOST=127.0.0.1, or a firewall in front of the application's port"},
	{"ports.operator", before, "Operator's port blocked", "OPERATOR_ADDR=127.0.0.1:3001, or a firewall in front of it"},
	{"exposed", before, "Nothing internal on the public address", "take these paths off the public listener"},
	{"firewall", before, "Minimal port exposure", "on the machine: `ss -tlnp` and the firewall's rules; only 80 and 443 should be open"},
	{"rate-limit", before, "10 connections per address and minute", "RATE_LIMIT_CONNECTIONS=10, RATE_LIMIT_WINDOW=1m; behind a proxy, see that it passes the client's address"},
	{"origin", before, "Origin validation", "NODE_ENV=production, and ALLOWED_ORIGINS with exactly this site's origin; behind a proxy, X-Forwarded-Proto"},

	{"headers.page", after, "All security headers on the page", mendHeaders},
	{"headers.asset", after, "All security headers on a file", mendHeaders},
	{"headers.missing", after, "All security headers on a 404", mendHeaders},
	{"headers.refusal", after, "All security headers on a 4xx of the WebSocket", mendHeaders},
	{"headers.upgrade", after, "All security headers on the upgrade", mendHeaders + "; some WebSocket libraries write a head of their own"},
	{"headers.hsts", after, "HSTS for a year", "Strict-Transport-Security: max-age=31536000 on every answer; NODE_ENV=production sends it"},
	{"headers.csp", after, "A policy that stops injected script", "no 'unsafe-inline', 'unsafe-eval' or open scheme in the policy: see headers.Strict"},
	{"headers.grade", after, "Grade of securityheaders.com, MDN Observatory", "see the named header"},
	{"tls.version", after, "TLS 1.2 at least", "ssl_protocols TLSv1.2 TLSv1.3 in nginx; Caddy and the server itself need nothing"},
	{"tls.ciphers", after, "No weak cipher suites", "ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20 in nginx; Caddy and the server itself need nothing"},
	{"tls.http2", after, "HTTP/2", "switch HTTP/2 on in the proxy"},
	{"rate-limit.answer", after, "Proper 429", "answer 429 with Retry-After, the seconds that are left of the window"},
	{"errors.pages", after, "Error pages disclose nothing", "answer errors with a fixed text; log the rest"},
	{"errors.banner", after, "No version in headers", "server_tokens off; remove Server and X-Powered-By where they name versions"},
	{"monitoring.health", after, "Health endpoints for monitors", "let /healthz and /readyz through"},
	{"monitoring.alerts", after, "Monitoring and alerting configured", "set up alerts for failed authentications, blocked addresses and a failing /readyz: see examples/deploy"},
	{"websocket.upgrade", after, "The WebSocket can be opened", "let the proxy pass Upgrade and Connection on, see examples/deploy; after 400 or 404, name a room of the server with -room if it has ROOMS; after 429 or 403, this address is limited or blocked"},
	{"websocket.size", after, "Message size limited before authentication", "close with 1009 if a message is larger than 4 KiB"},
	{"websocket.cleanup", after, "A closed connection no longer counts", "release the count when a connection ends"},
	{"auth.refused", after, "Invalid tokens are all refused alike", "one answer for every reason: {\"error\":\"Authentication failed\"}"},
	{"auth.close", after, "A refusal ends the connection", "close with 4401, and cut the connection within a second"},
	{"auth.json", after, "Malformed messages get a JSON error", "{\"error\":\"Invalid JSON\"} and close code 1007"},
	{"auth.token", after, "A valid token is accepted", "pass the token of a device that is not publishing with -token-file"},
	{"history", after, "History of 1,200 messages at most, without identity", "HISTORY_KEEP=1000, HISTORY_TRIM_AT=1200; send text, memory, status, prompt and timestamp only"},
}

const mendHeaders = "send each once on every answer, outermost of all handlers; see package headers"

// report returns the findings in the order of items.
func (p *probe) report() Report {
	r := Report{URL: p.url.String(), Count: map[Outcome]int{OK: 0, Warn: 0, Fail: 0, Manual: 0, Skipped: 0}}
	for _, at := range items {
		f, ok := p.found[at.id]
		if !ok {
			f = finding{Skipped, "not reached"}
			switch at.id {
			case "secret", "device-id", "firewall", "monitoring.alerts":
				f = finding{Manual, "not visible from outside"}
			}
		}
		item := Item{ID: at.id, Checklist: at.checklist, Point: at.point, Outcome: f.outcome, Seen: f.seen}
		if f.outcome != OK && f.outcome != Skipped || at.id == "auth.token" && f.outcome == Skipped {
			item.Mend = at.mend
		}
		r.Items = append(r.Items, item)
		r.Count[f.outcome]++
	}
	return r
}
