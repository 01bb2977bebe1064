//go:build unix

package main

import "testing"

func TestTrack(t *testing.T) {
	for _, row := range []struct {
		why                   string
		late                  bool
		seen                  []int64
		duplicates, disorders int
		lost, expected        int64 // of 6 messages
	}{
		{"all in order", false, []int64{0, 1, 2, 3, 4, 5}, 0, 0, 0, 6},
		{"nothing", false, nil, 0, 0, 6, 6},
		{"the first is missing", false, []int64{1, 2, 3, 4, 5}, 0, 0, 1, 6},
		{"the last is missing", false, []int64{0, 1, 2, 3, 4}, 0, 0, 1, 6},
		{"one in the middle is missing", false, []int64{0, 1, 3, 4, 5}, 0, 0, 1, 6},
		{"two change places", false, []int64{0, 1, 3, 2, 4, 5}, 0, 1, 0, 6},
		{"all backwards", false, []int64{5, 4, 3, 2, 1, 0}, 0, 5, 0, 6},
		{"one twice", false, []int64{0, 1, 1, 2, 3, 4, 5}, 1, 0, 0, 6},
		{"one late and twice", false, []int64{0, 2, 1, 1, 3, 4, 5}, 1, 1, 0, 6},
		{"the middle of a gap", false, []int64{0, 4, 2, 5}, 0, 1, 2, 6},
		{"joins in the middle", true, []int64{3, 4, 5}, 0, 0, 0, 3},
		{"joins in the middle and loses one", true, []int64{3, 5}, 0, 0, 1, 3},
		{"joins and gets nothing", true, nil, 0, 0, 6, 6},
	} {
		tr := track{late: row.late}
		duplicates, disorders := 0, 0
		for _, n := range row.seen {
			switch tr.see(n) {
			case duplicate:
				duplicates++
			case outOfOrder:
				disorders++
			}
		}
		if duplicates != row.duplicates || disorders != row.disorders || tr.lost(6) != row.lost || tr.expected(6) != row.expected {
			t.Errorf("%s: %d twice, %d disordered, %d of %d lost, want %d, %d, %d of %d", row.why,
				duplicates, disorders, tr.lost(6), tr.expected(6), row.duplicates, row.disorders, row.lost, row.expected)
		}
	}
}
