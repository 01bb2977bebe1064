package envcheck

import (
	"errors"
	"fmt"
	"strings"
)

// ListOf accepts items separated by commas, each as the setter that of returns
// accepts it, such as ListOf(&brokers, HostPort). Spaces around an item are
// dropped. Empty and repeated items are refused.
//
// A setter with arguments is given in a func:
//
//	envcheck.ListOf(&weights, func(w *float64) envcheck.Setter {
//		return envcheck.Number(w, 0, 1)
//	})
func ListOf[T any](into *[]T, of func(item *T) Setter) Setter {
	one := of(new(T))
	kind := func() string { return "a list separated by commas, without empty or repeated items" + one.each("item") }
	s := setter(into, kind, func(value string, secret bool) (list []T, err error) {
		err = eachItem(value, "item", func(place, item string) (string, error) {
			v, err := read(of, place, item, secret)
			list = append(list, v)
			return item, err
		})
		return list, err
	})
	return s.like(one).of(one, func(item string) string { return item })
}

// Map accepts pairs KEY=VALUE separated by commas, each value as the setter
// that of returns accepts it, such as Map(&labels, Text). Spaces around a pair,
// a key and a value are dropped. Empty keys and values and repeated keys are
// refused.
func Map[K ~string, T any](into *map[K]T, of func(value *T) Setter) Setter {
	one := of(new(T))
	kind := func() string { return "pairs KEY=VALUE separated by commas, without repeated keys" + one.each("value") }
	s := setter(into, kind, func(value string, secret bool) (map[K]T, error) {
		pairs := make(map[K]T)
		err := eachItem(value, "pair", func(place, pair string) (string, error) {
			key, text, _ := strings.Cut(pair, "=")
			key, text = strings.TrimSpace(key), strings.TrimSpace(text)
			if key == "" || text == "" {
				return "", CheckReason(place + " must have the form KEY=VALUE")
			}
			v, err := read(of, "the value of "+place, text, secret)
			pairs[K(key)] = v
			return key, err
		})
		return pairs, err
	})
	return s.like(one).of(one, func(pair string) string {
		_, value, _ := strings.Cut(pair, "=")
		return value
	})
}

// Optional accepts what the setter that of returns accepts, and points the
// target to the value, such as Optional(&limit, Port). A target that is nil
// after Load tells a variable that is not set from one that is set to zero.
func Optional[T any](into **T, of func(value *T) Setter) Setter {
	one := of(new(T))
	s := setter(into, one.kind, func(value string, secret bool) (*T, error) {
		v, err := read(of, "", value, secret)
		return &v, err
	})
	s.words = one.words
	return s.like(one)
}

// SecretOf accepts what the setter that of returns accepts, such as
// SecretOf(&key, Text), and makes the variable a secret, as Var.Secret does.
func SecretOf[T any](into *Secret[T], of func(value *T) Setter) Setter {
	one := of(new(T))
	s := setter(into, one.kind, func(value string, _ bool) (Secret[T], error) {
		v, err := read(of, "", value, true)
		return NewSecret(v), err
	})
	s.words = one.words
	s = s.like(one)
	s.secret = true
	return s
}

// like returns s with the properties of the setter of its parts.
func (s Setter) like(one Setter) Setter {
	s.secret, s.local, s.mistake, s.parts = one.secret, one.local, one.mistake, one.parts
	if one.parse == nil {
		s.mistake = "the func returns no setter"
	}
	return s
}

// of returns s with the parts of a list: of each item what secret returns, and
// what that is made of.
func (s Setter) of(one Setter, secret func(item string) string) Setter {
	s.parts = func(value string) (all []string) {
		for item := range strings.SplitSeq(value, ",") {
			part := secret(strings.TrimSpace(item))
			all = append(all, part)
			if one.parts != nil {
				all = append(all, one.parts(part)...)
			}
		}
		return all
	}
	return s
}

// each describes the parts of a list that s reads.
func (s Setter) each(part string) string {
	if s.kind == nil || s.kind() == anyText {
		return ""
	}
	return "; each " + part + " must be " + s.kind()
}

// read returns the value that a setter reads. The place is a part of a list, or
// empty.
func read[T any](of func(*T) Setter, place, value string, secret bool) (v T, err error) {
	s := of(&v)
	swap, err := s.parse(value, secret)
	if err == nil {
		swap()
		return v, nil
	}
	if reason, ok := errors.AsType[CheckReason](err); ok && place != "" {
		return v, CheckReason(place + " " + reason.Error())
	} else if !ok && place != "" {
		return v, CheckReason(place + " must be " + s.kind())
	}
	return v, err
}

// eachItem calls do for every item of a list, with its place, such as "item 1",
// until there is an error. The keys that do returns must differ.
func eachItem(value, noun string, do func(place, item string) (key string, err error)) error {
	seen := make(map[string]int)
	n := 0
	for item := range strings.SplitSeq(value, ",") {
		n++
		place := fmt.Sprintf("%s %d", noun, n)
		if item = strings.TrimSpace(item); item == "" {
			return CheckReason(place + " is empty")
		}
		key, err := do(place, item)
		if err != nil {
			return err
		}
		if first := seen[key]; first > 0 {
			return CheckReason(fmt.Sprintf("%s repeats %s %d", place, noun, first))
		}
		seen[key] = n
	}
	return nil
}
