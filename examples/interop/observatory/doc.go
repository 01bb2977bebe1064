// Package observatory compares headers.Grade with the tools that it stands in
// for: MDN's HTTP Observatory, which scans real servers over TLS, and Google's
// CSP Evaluator. Both come from npm:
//
//	npm ci --ignore-scripts
//	go test .
package observatory
