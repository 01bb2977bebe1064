package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// Whoever looks at the demonstration for some minutes sees memory fill, and a life
// end because it has.
func TestDemoFillsItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mind, began := mortal(), time.Now()
		last, lives := 0.0, 0
		for lives < 3 {
			m, err := mind.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m.Memory != nil {
				if m.Memory.PercentUsed < last {
					t.Fatalf("memory fell from %v to %v in mid-life", last, m.Memory.PercentUsed)
				}
				last = m.Memory.PercentUsed
			}
			if m.Restarting() {
				if lives > 0 && last < 98 {
					t.Errorf("a life ended at %v %%", last)
				}
				lives++
				last = 0
			}
		}
		if each := time.Since(began) / 2; each < time.Minute || each > 4*time.Minute {
			t.Errorf("a life lasts %v", each)
		}
	})
}
