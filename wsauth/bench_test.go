package wsauth_test

import (
	"testing"

	"github.com/relayguard/relayguard/wsauth"
)

// BenchmarkAuthorize measures the cost of one message of a publisher while
// other publishers send too.
func BenchmarkAuthorize(b *testing.B) {
	gate, _, _ := newGate(b, wsauth.Config{})
	s := gate.Attach(newScript(tokenMessage(live("pi-1")), `{}`), wsauth.Peer{})
	defer s.Close(1000, "")
	if _, err := s.Next(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Authorize(wsauth.Publish); err != nil {
				b.Fatal(err)
			}
		}
	})
}
