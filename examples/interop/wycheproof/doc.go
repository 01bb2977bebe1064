// Package wycheproof tests package wsauth with the JWS vectors of Project
// Wycheproof (github.com/c2sp/wycheproof).
package wycheproof
