// Package freeport finds addresses of this machine for the processes that a
// test starts.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Find returns an address at which nothing listens. Its port is not one that a
// system gives to a listener at port 0 or to an outgoing connection, so that it
// probably stays free until a process listens there. The host defaults to
// 127.0.0.1.
func Find(host ...string) (string, error) {
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(22_000))
		addr := net.JoinHostPort(append(host, "127.0.0.1")[0], port)
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr, nil
		}
	}
	return "", errors.New("no free port on this machine")
}

// Addr is [Find] for a test, which fails if there is no such address.
func Addr(t testing.TB, host ...string) string {
	t.Helper()
	addr, err := Find(host...)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
