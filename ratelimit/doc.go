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
package ratelimit
