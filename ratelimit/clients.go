package ratelimit

import (
	"math"
	"math/bits"
	"slices"
)

// client is one client with its present window. It has 32 bytes, and no
// pointer that the garbage collector would follow.
type client struct {
	key     uint64
	start   int64  // of the window, since Limiter.began, in nanoseconds
	counted uint32 // in the window
	tries   uint32 // attempts in the window, and one more; zero is an empty slot
	open    uint32 // connections, in whichever windows they began
}

// clients is a hash table with open addressing. A client whose window began
// before oldest is forgotten: if it has no open connection, its slot is free.
// So all clients of a period are forgotten at once, and no sweep takes the time
// of a request.
type clients struct {
	slots []client
	used  int // slots that are not empty

	begin, end, oldest int64 // the period, and the begin of the one before
	young, old         int   // clients by the period in which their window began
	held, open         int   // clients with open connections, and those connections
	roomy              bool  // most slots are free, so rebuild
}

// turn moves the table to the period that holds at, and returns the number of
// clients that it has forgotten. It ignores earlier periods, so that callers
// whose clocks differ a little do no harm.
func (t *clients) turn(at, length int64) (forgotten int) {
	if at < t.end {
		return 0
	}
	begin, end := period(at, length)
	forgotten, t.old = t.old, t.young
	if begin != t.end {
		forgotten, t.old = forgotten+t.old, 0
	}
	t.young = 0
	t.begin, t.end, t.oldest = begin, end, begin-length
	if t.oldest > begin {
		t.oldest = math.MinInt64
	}
	switch live := t.young + t.old + t.held; {
	case live == 0:
		t.slots, t.used, t.roomy = nil, 0, false
	default:
		t.roomy = 4*live < len(t.slots)
	}
	return forgotten
}

func (t *clients) fresh(c *client) bool { return c.start >= t.oldest }

// find returns the client, or nil. The client may be forgotten already, and is
// there because of its open connections, or by chance.
func (t *clients) find(key, place uint64) *client {
	if len(t.slots) == 0 {
		return nil
	}
	for i := t.first(place); ; {
		c := &t.slots[i]
		switch {
		case c.tries == 0:
			return nil
		case c.key == key:
			return c
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

func (t *clients) first(place uint64) int {
	i, _ := bits.Mul64(place, uint64(len(t.slots)))
	return int(i)
}

// add returns a slot for a client that find has not found. placeOf returns the
// place of a key.
func (t *clients) add(key, place uint64, placeOf func(uint64) uint64) *client {
	if 5*(t.used+1) > 4*len(t.slots) {
		t.rebuild(placeOf)
	}
	c := t.free(place)
	if c.tries == 0 {
		t.used++
	}
	*c = client{key: key, start: math.MinInt64, tries: 1}
	return c
}

// free returns the first slot from place on that is empty or of a forgotten
// client.
func (t *clients) free(place uint64) *client {
	for i := t.first(place); ; {
		c := &t.slots[i]
		if c.tries == 0 || c.open == 0 && !t.fresh(c) {
			return c
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

// rebuild moves all clients that are not forgotten to new slots. Between 59 and
// 80 % of the slots are then used, so a client takes 40 to 55 bytes, and up to
// an eighth more if the allocator has no blocks of this size.
func (t *clients) rebuild(placeOf func(uint64) uint64) {
	before := t.slots
	live := 0
	for i := range before {
		if c := &before[i]; c.tries != 0 && (c.open != 0 || t.fresh(c)) {
			live++
		}
	}
	t.slots = slices.Grow([]client(nil), max(4, (live+1)*17/10))
	t.slots = t.slots[:cap(t.slots)]
	clear(t.slots)
	t.used, t.roomy = live, false
	for i := range before {
		if c := &before[i]; c.tries != 0 && (c.open != 0 || t.fresh(c)) {
			*t.free(placeOf(c.key)) = *c
		}
	}
}

// count returns the number of clients whose windows began in the period of
// start.
func (t *clients) count(start int64) *int {
	if start >= t.begin {
		return &t.young
	}
	return &t.old
}

// restart gives the client a window that begins at start. known is unset if the
// client was forgotten.
func (t *clients) restart(c *client, start int64, known bool) {
	if known {
		*t.count(c.start)--
	}
	c.start, c.counted, c.tries = start, 0, 1
	*t.count(start)++
}

// enter counts one more connection.
func (t *clients) enter(c *client) {
	c.counted++
	c.tries++
	if c.open++; c.open == 1 {
		t.held++
	}
	t.open++
}

// leave takes an open connection off.
func (t *clients) leave(c *client) {
	if c.open--; c.open == 0 {
		t.held--
	}
	t.open--
}

// period returns the limits of the period of this length that holds at. Both
// are rounded down, also if they are negative: a time may be before New.
func period(at, length int64) (begin, end int64) {
	rest := at % length
	if rest < 0 {
		rest += length
	}
	if begin = at - rest; begin > at {
		begin = math.MinInt64
	}
	if end = begin + length; end < begin {
		end = math.MaxInt64
	}
	return begin, end
}
