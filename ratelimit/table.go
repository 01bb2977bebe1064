package ratelimit

// table stores values by key, in two generations. A value that is not renewed
// for a whole period is dropped together with its generation. Dropping a map
// takes no time under the lock, unlike a sweep, and frees its memory, unlike
// clear. A value is kept for one to two periods after its last renewal.
type table[V any] struct {
	period     int64 // the end of the present one
	young, old map[uint64]V
}

// turn moves the table to the given period, and returns the number of values
// that it has dropped. It ignores earlier periods, so that callers whose clocks
// differ a little do no harm.
func (t *table[V]) turn(begin, end int64) (dropped int) {
	switch {
	case end <= t.period:
		return 0
	case begin == t.period:
		dropped = len(t.old)
		t.old, t.young = t.young, nil
	default:
		dropped = len(t.old) + len(t.young)
		t.old, t.young = nil, nil
	}
	t.period = end
	return dropped
}

func (t *table[V]) get(key uint64) (v V, known bool) {
	if v, known = t.young[key]; !known {
		v, known = t.old[key]
	}
	return v, known
}

// renew stores a value for at least one period, and reports whether the key is
// new.
func (t *table[V]) renew(key uint64, v V) (added bool) {
	before := t.len()
	delete(t.old, key)
	if t.young == nil {
		t.young = make(map[uint64]V)
	}
	t.young[key] = v
	return t.len() > before
}

func (t *table[V]) remove(key uint64) (removed bool) {
	before := t.len()
	delete(t.young, key)
	delete(t.old, key)
	return t.len() < before
}

func (t *table[V]) len() int { return len(t.young) + len(t.old) }
