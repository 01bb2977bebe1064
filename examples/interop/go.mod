module github.com/relayguard/relayguard/examples/interop

go 1.26.8

replace github.com/relayguard/relayguard => ../..

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
	nhooyr.io/websocket v1.8.17
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/realclientip/realclientip-go v1.0.0 // indirect
	github.com/unrolled/secure v1.17.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

require (
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
	github.com/relayguard/relayguard v0.0.0
)
