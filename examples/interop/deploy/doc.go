// Package deploy tests the files of examples/deploy: the systemd units, the
// image and its compose file, the fail2ban filter and jail, the Grafana
// dashboard and the files for Prometheus. Package proxies tests the proxies'
// configurations.
//
// On Debian: apt-get install systemd strace fail2ban prometheus. No container
// engine is needed. The test runs the Dockerfile's build command unchanged, on
// the files that .dockerignore admits, and then runs the result in an empty
// root directory. It must run as root for that.
package deploy
