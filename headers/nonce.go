package headers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"html/template"
	"net/http"
)

type nonceKey struct{}

// Nonce returns the nonce of the response to the request with this context. It
// is "" if no middleware whose CSP contains [NonceSource] has handled the
// request. A nonce has 128 random bits, in URL-safe base64: html/template would
// escape the + of standard base64 as &#43;.
//
// Send a page with a nonce with Cache-Control: no-store, and with nothing less.
// A shared cache would send the same nonce to everyone. With private or
// no-cache, and an ETag or a Last-Modified, the browser asks again and gets a
// 304 with a new nonce in the CSP, which the scripts of its stored page do not
// have.
func Nonce(ctx context.Context) string {
	nonce, _ := ctx.Value(nonceKey{}).(string)
	return nonce
}

// NonceAttr returns the attribute nonce="…" for a <script> or <style> element
// in html/template. If there is no nonce, it returns "", and the browser
// refuses the element.
func NonceAttr(ctx context.Context) template.HTMLAttr {
	nonce := Nonce(ctx)
	if nonce == "" {
		return ""
	}
	return template.HTMLAttr(`nonce="` + nonce + `"`)
}

// withNonce keeps the nonce of an outer middleware, so that all policies of a
// response have the same nonce.
func withNonce(r *http.Request) *http.Request {
	if Nonce(r.Context()) != "" {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), nonceKey{}, newNonce()))
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it would end the process
	return base64.RawURLEncoding.EncodeToString(b[:])
}
