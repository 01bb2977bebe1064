package site

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net/netip"
	"strings"
)

// httpLog returns the ErrorLog of an [http.Server]. Strangers cause most of its
// lines, and net/http puts what differs into the middle of their text. So each
// line becomes a record with one of few messages, by which l can thin them, and
// with the address and the rest as attributes.
func httpLog(l *slog.Logger) *log.Logger { return log.New(httpLines{l}, "", 0) }

type httpLines struct{ log *slog.Logger }

// httpMessages are the beginnings of net/http's lines, the longest first. Each
// other line has the message of the last.
var httpMessages = []struct {
	prefix, msg string
	level       slog.Level
}{
	{"http: TLS handshake error", "TLS handshake failed", slog.LevelWarn},
	{"http: Accept error", "connection not accepted", slog.LevelWarn},
	{"http: panic serving", "panic", slog.LevelError},
	{"http2: panic serving", "panic", slog.LevelError},
	{"http2: ", "HTTP/2 connection failed", slog.LevelWarn},
	{"", "HTTP server", slog.LevelWarn},
}

// Write takes one line, as [log.Logger] writes it.
func (h httpLines) Write(line []byte) (int, error) {
	text, stack, _ := strings.Cut(string(bytes.TrimSuffix(line, []byte("\n"))), "\n")
	i := 0
	for !strings.HasPrefix(text, httpMessages[i].prefix) {
		i++
	}
	m := httpMessages[i]
	text, addr := withoutPeer(text)
	var attrs []slog.Attr
	if addr.IsValid() {
		attrs = append(attrs, slog.Any("addr", addr))
	}
	if m.msg == "panic" {
		// The value is left out, since it may quote what a stranger sent.
		attrs = append(attrs, slog.String("stack", stack))
	} else {
		attrs = append(attrs, slog.String("error", strings.TrimLeft(strings.TrimPrefix(text, m.prefix), ": ")))
	}
	h.log.LogAttrs(context.Background(), m.level, m.msg, attrs...)
	return len(line), nil
}

// withoutPeer takes the first address out of a line of net/http. There, it
// stands before any text that a stranger may have chosen.
func withoutPeer(text string) (rest string, addr netip.Addr) {
	for _, before := range []string{" from client ", " from ", " serving "} {
		head, tail, found := strings.Cut(text, before)
		if !found {
			continue
		}
		word, after, _ := strings.Cut(tail, " ")
		if ap, err := netip.ParseAddrPort(strings.TrimSuffix(word, ":")); err == nil {
			return head + ": " + after, ap.Addr().Unmap().WithZone("")
		}
	}
	return text, netip.Addr{}
}
