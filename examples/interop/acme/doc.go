// Package acme runs the server against Pebble, Let's Encrypt's own authority for
// tests, to see that it gets and renews its certificates by itself.
package acme
