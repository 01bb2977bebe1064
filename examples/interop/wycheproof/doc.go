// Package wycheproof tests package jwtauth with the JWS vectors of Project
// Wycheproof (github.com/c2sp/wycheproof).
package wycheproof
