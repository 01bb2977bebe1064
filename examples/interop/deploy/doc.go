// Package deploy tests what examples/deploy ships beside the proxies' configurations: the systemd units, the image and
// its compose file, the fail2ban filter and jail, the Grafana dashboard and what is for Prometheus.
//
// On Debian: apt-get install systemd strace fail2ban prometheus. There is no container engine in it: the image's build
// it stands in the Dockerfile, on what its .dockerignore lets through, and the result in an empty root; that takes root.
package deploy
