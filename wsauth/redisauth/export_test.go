package redisauth

import (
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/wsauth"
)

// Record is a record of revocations.
type Record = record

// Merged returns what is known from both.
func (r record) Merged(o record) record { return r.merged(o) }

// Parse reads what an engine may answer, by every parser, and returns the
// errors.
func Parse(a *Authority, field, value string) (errs []error) {
	_, err := readEvent(rueidis.XRangeSlice{ID: value, FieldValues: []rueidis.XRangeFieldValue{{Field: field, Value: value}}})
	_, _, lease := readLease([]string{value, field, value, field, value})
	reason, _ := readEnd(value)
	if reason != wsauth.ReasonOperator && reason != wsauth.ReasonReplaced {
		panic("a reason of a stranger")
	}
	var st wsauth.SharedState
	revoked := a.digest(&st, event{kind: "revoked", name: field, value: value})
	_ = a.digest(&st, event{kind: field, name: value, value: value})
	_, session := a.info(field, value)
	_, family := families{a}.opened(field, value)
	return append(errs, err, lease, revoked, session, family)
}

// SetSkew makes a believe that the engine's clock is ahead by d, until the next
// renewal.
func (a *Authority) SetSkew(d time.Duration) { a.skew.Store(d.Microseconds()) }
