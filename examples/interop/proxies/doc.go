// Package proxies tests the relay behind real nginx and Caddy, with the
// configurations of examples/deploy.
//
// The programs must be installed; on Debian: apt-get install nginx-light caddy.
// They run unprivileged on loopback.
package proxies
