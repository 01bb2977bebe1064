package relay_test

import (
	"reflect"
	"testing"

	"github.com/relayguard/relayguard/examples/server/relay"
)

// A sum of two has every field of both, also one that is added later.
func TestStatsAdd(t *testing.T) {
	var one, two, want relay.Stats
	next := uint64(0)
	var fill func(one, two, want reflect.Value)
	fill = func(one, two, want reflect.Value) {
		switch one.Kind() {
		case reflect.Struct:
			for i := range one.NumField() {
				fill(one.Field(i), two.Field(i), want.Field(i))
			}
		case reflect.Array:
			for i := range one.Len() {
				fill(one.Index(i), two.Index(i), want.Index(i))
			}
		case reflect.Map:
			for _, m := range []reflect.Value{one, two, want} {
				m.Set(reflect.ValueOf(map[string]uint64{"flood": 3}))
			}
			want.SetMapIndex(reflect.ValueOf("flood"), reflect.ValueOf(uint64(6)))
		default:
			next++
			kind := one.Type()
			one.Set(reflect.ValueOf(next).Convert(kind))
			two.Set(reflect.ValueOf(100 * next).Convert(kind))
			want.Set(reflect.ValueOf(101 * next).Convert(kind))
		}
	}
	fill(reflect.ValueOf(&one).Elem(), reflect.ValueOf(&two).Elem(), reflect.ValueOf(&want).Elem())
	if one.Add(two); !reflect.DeepEqual(one, want) {
		t.Errorf("the sum is\n%+v, want\n%+v", one, want)
	}
}
