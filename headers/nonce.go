package headers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"html/template"
	"net/http"
)

type nonceKey struct{}

// Nonce returns the nonce of the response under way, or "" where no middleware whose CSP holds NonceSource was passed.
// It is 128 random bits in URL-safe base64: html/template would write the + of the standard alphabet as &#43;.
//
// A page with a nonce must not be stored by a shared cache, which would hand one nonce to everybody: send it with
// Cache-Control: no-store or private.
func Nonce(ctx context.Context) string {
	nonce, _ := ctx.Value(nonceKey{}).(string)
	return nonce
}

// NonceAttr returns the attribute nonce="…" for a <script> or <style> element in html/template. Without a nonce it is
// empty, and the browser refuses the element.
func NonceAttr(ctx context.Context) template.HTMLAttr {
	nonce := Nonce(ctx)
	if nonce == "" {
		return ""
	}
	return template.HTMLAttr(`nonce="` + nonce + `"`)
}

// withNonce keeps a nonce that an outer middleware made, so that all policies of one response agree.
func withNonce(r *http.Request) *http.Request {
	if Nonce(r.Context()) != "" {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), nonceKey{}, newNonce()))
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}
