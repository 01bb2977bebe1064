package clientip_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/relayguard/relayguard/ratelimit/clientip"
)

func Example() {
	trusted, err := clientip.ParsePrefixes("loopback, 10.0.0.0/8")
	if err != nil {
		panic(err)
	}
	resolver := clientip.Behind(trusted...)

	r := httptest.NewRequest("GET", "/ws", nil)
	// A trusted proxy appends the second address to the client's invented one.
	r.RemoteAddr = "10.0.0.1:40000"
	r.Header.Set("X-Forwarded-For", "8.8.8.8, 192.0.2.1:51234")
	fmt.Println(resolver.Addr(r))

	r.RemoteAddr = "203.0.113.9:40000" // not a trusted proxy
	fmt.Println(resolver.Addr(r))
	// Output:
	// 192.0.2.1
	// 203.0.113.9
}

// The first address of X-Forwarded-For comes from the client, which can invent
// it. Trust only your own proxies, never all addresses.
func ExampleBehind_incorrect() {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = "10.0.0.1:40000"
	r.Header.Set("X-Forwarded-For", "8.8.8.8, 192.0.2.1")

	everyone, err := clientip.ParsePrefixes("0.0.0.0/0") // wrong
	fmt.Println(everyone, err)

	right := clientip.Behind(clientip.Private()...)
	fmt.Println(right.Addr(r))
	// Output:
	// [] clientip: "0.0.0.0/0" would trust every address
	// 192.0.2.1
}

// Paste the list of a CDN as it is published, here the beginning of
// Cloudflare's, with what else you trust. Behind a CDN and a proxy of your own,
// both are trusted.
func ExampleParsePrefixes() {
	trusted, err := clientip.ParsePrefixes(`
		loopback          # nginx
		173.245.48.0/20   # Cloudflare
		103.21.244.0/22
		2400:cb00::/32
	`)
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("X-Forwarded-For", "192.0.2.1, 173.245.48.9")
	fmt.Println(clientip.Behind(trusted...).Addr(r))
	// Output: 192.0.2.1
}

func ExampleResolver_Resolve() {
	resolver := clientip.Behind(clientip.Private()...)
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = "10.0.0.1:40000"
	r.Header.Set("X-Forwarded-For", "unknown")
	res := resolver.Resolve(r)
	fmt.Println(res.Addr, res.Source, res.Err)
	// Output: 10.0.0.1 peer clientip: x-forwarded-for: obfuscated or unknown
}
