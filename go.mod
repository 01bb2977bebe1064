module github.com/relayguard/relayguard

go 1.26.0

require (
	filippo.io/age v1.2.1
	github.com/lestrrat-go/jwx/v2 v2.1.6
	github.com/redis/rueidis v1.0.69
	golang.org/x/time v0.11.0
	nhooyr.io/websocket v1.8.17
)

require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.0 // indirect
	github.com/goccy/go-json v0.10.3 // indirect
	github.com/lestrrat-go/blackmagic v1.0.3 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc v1.0.6 // indirect
	github.com/lestrrat-go/iter v1.0.2 // indirect
	github.com/lestrrat-go/option v1.0.1 // indirect
	github.com/segmentio/asm v1.2.0 // indirect
	golang.org/x/crypto v0.32.0 // indirect
	golang.org/x/sys v0.31.0 // indirect
)
