package authority

import "time"

// For tests.
var LoadRevocations = loadRevocations

func (r *revocations) Add(device string, before time.Time) error { return r.add(device, before) }
func (r *revocations) Before(device string) time.Time            { return r.before[device] }
