package ratelimit_test

import (
	"net/netip"
	"testing"

	"github.com/relayguard/relayguard/ratelimit"
)

func BenchmarkAdmitHot(b *testing.B) {
	l, err := ratelimit.New(ratelimit.Config{Limit: 1 << 24})
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		l.Admit(a)
	}
}
