// Package ratelimit limits the connections or the requests of each client: how
// many it may open within a time window, and how many at once. A client is an
// address, an account or an API key. The package also blocks networks, and
// clients that fail too often.
//
//	package main
//
//	import (
//		"log"
//		"net/http"
//
//		"github.com/relayguard/relayguard/ratelimit"
//	)
//
//	func main() {
//		lim, err := ratelimit.New(ratelimit.Config{}) // 10 a minute each
//		if err != nil {
//			log.Fatal(err)
//		}
//		ws := http.NotFoundHandler() // put your WebSocket handler here
//		http.Handle("/ws", lim.Handler(ws))
//		log.Fatal(http.ListenAndServe("localhost:8080", nil))
//	}
//
// A client is an IPv4 address or an IPv6 /64 network ([Fold]). Behind a reverse
// proxy, set Config.ClientIP, since otherwise all requests come from the
// address of the proxy.
//
// # Limits
//
// One decision applies three limits to a client:
//
//   - Config.Limit is the number of connections that count in a window. A
//     connection no longer counts after it has ended, or after the window has
//     ended.
//   - Config.MaxAttempts is the number of admissions in a window. They count
//     until the end of the window, so a client cannot connect and disconnect
//     without end.
//   - Config.MaxOpen is the number of open connections, in whichever window
//     they began, so a client cannot collect connections over many windows.
//     It is 5 times Limit by default. For N connections at once, however long
//     they last, set Limit and MaxOpen to N.
//
// Two limits apply to all clients together, so that many addresses cannot do
// what one may not: Config.MaxTotal, the number of open connections, and
// Config.Process, the number of admissions a second.
//
// Each client has its own window of fixed length. It begins with the first
// admission after the previous window has ended. A refusal changes nothing: it
// does not count, and it does not extend the window, so a client that waits for
// its Retry-After can connect again.
//
// # Requests
//
// For ordinary requests, such as logins and calls of an API, set Config.Count
// to [CountRequests]. A finished request then counts until its window ends.
//
// # Keys
//
// Config.Key lets a limiter count by something else than the address: an
// account, an API key or a tenant. [Key] has the rules. [All] applies several
// limiters to one request, such as one by address and one by account.
// Config.Networks gives an office or a venue a limit of its own.
//
// # Connections
//
// By default, [Limiter.Handler] counts connections, not requests. If the next
// handler hijacks the connection, as WebSocket libraries do, the connection
// counts until the net.Conn from Hijack is closed, even if the handler has
// returned long before. Otherwise it counts until the handler returns or
// panics. A failed upgrade therefore no longer counts against Limit and
// MaxOpen, but still counts against MaxAttempts. The hook http.Server.ConnState
// could not do this: it reports StateHijacked at the upgrade, and nothing
// afterwards.
//
// # Memory
//
// A client takes at most 64 bytes, of an address or of an ID of any length. A
// window that ended is forgotten within another window, for all clients at
// once: there is no goroutine, no sweep through the clients, and nothing to
// close. A client with an open connection is never forgotten. If Config.MaxKeys
// clients are known, each further client shares a bucket with the other unknown
// clients of its network (an IPv4 /24 or an IPv6 /48), and each further ID with
// other unknown IDs.
//
// # Blocking
//
// [Limiter.Block] refuses a network until a given time. [Penalty] blocks single
// clients: report each failure, such as a refused token, with [Limiter.Fail]. A
// client that fails too often is blocked, and each further block lasts twice as
// long. Handler answers 403 to a blocked client, 429 with Retry-After to a
// client over a limit, and 503 with Retry-After beyond Config.MaxTotal. The
// header fields of Config.Fields tell clients how much they have left.
//
// # Nodes
//
// Several processes, called nodes, can count their clients together: set
// Config.Shared, such as to that of package ratelimit/redislimit. A node still
// decides by its own count first, so what it refuses by itself costs the others
// nothing. A connection that it would admit is admitted if all nodes together
// have room for it. Config.MaxTotal and Config.Process are of each node alone,
// and so are the shared buckets beyond Config.MaxKeys.
//
// If Shared does not answer, the node decides alone, and Decision.Local says
// so. A client then has at most its limits on each node. Blocks and penalties
// are in force on all nodes, but for the penalties of IDs: these reach another
// node when the client connects or fails there. Config.OnShared is told of what
// other nodes do.
//
// # Logs
//
// Config.OnReject gets some of the refusals, each with the number of those of
// the same client that were left out. What is left out at the end of a burst is
// told by a timer, which exists only while there is something to tell.
//
// # Concurrency
//
// All methods are safe for concurrent use.
//
// # Cost
//
// The table shows the times of other packages as multiples of the time of this
// one, in one run of November 2026. To measure them, run in examples/interop:
//
//	go test ./bench -run '^$' -bench 'Admit|Handler' -benchtime 80x
//	go test ./bench -run '^$' -bench Heap -benchtime 1x
//
//	                      one     a                  allocs  bytes
//	                      client  million  Handler   each    a client
//	Admit                 1       1        1         0       48
//	Admit and Release     1.24    1.22               0       48
//	go-chi/httprate       6.03    2.72      5.23     3       38
//	ulule/limiter         4.47    3.52      4.52     2       198
//	sethvargo/go-limiter  1.34    1.16      3.76     0       140
//	didip/tollbooth v7    7.23    2.81     11.02     0       252
//	map of x/time/rate    2.91    1.69      0.60     0       188
//
// Allocations are those of one decision. The other packages got their keys as
// strings made beforehand. Limiter.Handler also watches for the upgrade, which
// takes two allocations; with CountRequests it does not, and takes none.
package ratelimit
