// Package deploy tests what examples/deploy ships beside the proxies'
// configurations: the systemd units, the image and its compose file, the
// fail2ban filter and jail, the Grafana dashboard and what is for Prometheus.
//
// On Debian: apt-get install systemd strace fail2ban prometheus. No container
// engine is needed: the Dockerfile's build command is run as it stands, on what
// the .dockerignore lets through, and the result in an empty root, which takes
// root.
package deploy
