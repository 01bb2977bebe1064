// Package ratelimit says who may open a connection, how often, and how many at once.
//
// A client is an IPv4 address or an IPv6 /64 ([Fold]). Three limits hold for each, in one decision:
//
//   - Limit connections counted in a window. A connection that ends in the window that counted it is given back, and
//     the window's end resets the count.
//   - MaxAttempts admissions in a window, never given back, so that a loop of connecting and closing ends.
//   - MaxOpen connections open at once, whatever window they began in, so that holding on does not add up.
//
// A window is fixed, and belongs to the client: it begins with the first connection after the last window ended. What
// is refused changes nothing: it neither lengthens a window nor counts in it, and the promised Retry-After holds.
//
// # Connections, not requests
//
// [Limiter.Handler] holds the slot for as long as the connection lives. For an upgraded connection that is until Close
// of the net.Conn that Hijack returned, long after the handler may have returned; for any other request until the
// handler returns or panics. An upgrade that fails therefore frees its slot at once, and keeps its attempt. A server's
// ConnState hook cannot do this: it reports StateHijacked at the upgrade and nothing afterwards.
//
// # Memory
//
// What is known of clients lives in two generations of sharded maps. Once per window the older is dropped whole, by
// whichever call comes first: there is no sweep, no goroutine and nothing to close. An idle client is forgotten within
// twice the window. Clients with an open connection are counted apart and are never forgotten. Past MaxKeys clients,
// newcomers share the bucket of their network (IPv4 /24, IPv6 /48) instead of getting one of their own.
//
// # Blocking
//
// [Limiter.Block] refuses a network until a given time. [Penalty] does so by itself: report what failed with
// [Limiter.Fail], and an address that fails too often is blocked for a time that doubles with each recurrence. A
// blocked client is answered 403, a limited one 429 with Retry-After.
//
// Every method is safe for concurrent use.
//
// # Beside others
//
// Time as a multiple of this package's, one run, November 2026 (in examples/interop:
// go test ./bench -run '^$' -bench 'Admit|Handler' -benchtime 60x; bytes: -bench Heap -benchtime 1x):
//
//	                      one client   a million   Handler   allocations   bytes a client
//	Admit                 1            1           1         0             59 (connection held)
//	Admit and Release     1.30         1.27                  0             35
//	go-chi/httprate       2.06         1.44        3.64      3             38
//	ulule/limiter         1.63         1.83        3.20      2             198
//	sethvargo/go-limiter  0.52         0.74        2.65      0             140
//	didip/tollbooth v7    2.65         1.56        8.01      0             252
//	map of x/time/rate    1.07         0.95        0.59      0             188
//
// Allocations are those of a decision. go-limiter decides faster: it keeps one count, where Admit also keeps attempts
// and open connections. The others' decisions were given a ready string as key. Handler here also watches for the
// upgrade.
package ratelimit
