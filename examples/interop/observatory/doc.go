// Package observatory compares headers.Grade with the tools that it
// reimplements: MDN's HTTP Observatory, which scans real servers over TLS, and
// Google's CSP Evaluator. Both are npm packages:
//
//	npm ci --ignore-scripts
//	go test .
package observatory
