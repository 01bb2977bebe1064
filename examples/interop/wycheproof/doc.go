// Package wycheproof puts the JWS vectors of Project Wycheproof
// (github.com/c2sp/wycheproof) to package wsauth.
package wycheproof
