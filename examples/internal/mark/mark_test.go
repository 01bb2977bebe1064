package mark_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/examples/internal/mark"
)

type found struct{ n, at int64 }

// scan passes the pieces of one message to a Finder.
func scan(run string, pieces ...string) (marks []found, broken int) {
	f, tail := mark.NewFinder(run), mark.Tail{}
	for i, p := range pieces {
		broken += f.Scan(&tail, []byte(p), i == len(pieces)-1, func(n, at int64) { marks = append(marks, found{n, at}) })
	}
	return marks, broken
}

func TestScan(t *testing.T) {
	for _, row := range []struct {
		why, text string
		marks     []found
		broken    int
	}{
		{"nothing", ``, nil, 0},
		{"alone", `run=a1 n=000000007 t=123 `, []found{{7, 123}}, 0},
		{"in an envelope", `{"type":"live","messages":[{"text":"run=a1 n=7 t=1 x"},{"text":"run=a1 n=8 t=2 "}]}`, []found{{7, 1}, {8, 2}}, 0},
		{"of another run", `run=b1 n=7 t=1 `, nil, 0},
		{"of a run with a longer name", `run=a12 n=7 t=1 `, nil, 0},
		{"without a number", `run=a1 n= t=1 `, nil, 1},
		{"without a time", `run=a1 n=7 x`, nil, 1},
		{"cut off in the number", `run=a1 n=00`, nil, 1},
		{"cut off in the time", `run=a1 n=7 t=1`, nil, 1},
		{"cut off before it", `run=a1 n=7 t`, nil, 1},
		{"too long a number", `run=a1 n=12345678901234567890 t=1 `, nil, 1},
		{"broken, then whole", `run=a1 n=run=a1 n=7 t=1 `, []found{{7, 1}}, 1},
		{"a time of 19 digits", `run=a1 n=7 t=1764028140123456789 `, []found{{7, 1764028140123456789}}, 0},
	} {
		marks, broken := scan("a1", row.text)
		if !slices.Equal(marks, row.marks) || broken != row.broken {
			t.Errorf("%s: %v and %d broken, want %v and %d", row.why, marks, broken, row.marks, row.broken)
		}
	}
}

func TestAppend(t *testing.T) {
	at := time.Unix(0, 1764028140123456789)
	for _, size := range []int{0, 10, 100, 5000} {
		text := string(mark.Append(nil, "a1", 42, at, size))
		if marks, broken := scan("a1", text); broken != 0 || !slices.Equal(marks, []found{{42, at.UnixNano()}}) {
			t.Errorf("size %d: %v and %d broken in %q", size, marks, broken, text)
		}
		if size >= 100 && len(text) != size {
			t.Errorf("%d bytes, want %d", len(text), size)
		}
	}
}

func TestCheckRun(t *testing.T) {
	for run, ok := range map[string]bool{
		mark.NewRun(): true, "a": true, "": false, "A": false, `a"`: false, "a b": false, strings.Repeat("a", 17): false,
	} {
		if err := mark.CheckRun(run); (err == nil) != ok {
			t.Errorf("%q: %v", run, err)
		}
	}
}

// The pieces of a message have the same marks as the whole message.
func FuzzScan(f *testing.F) {
	f.Add("run=a n=1 t=2 run=a n=3 t=4 ", uint64(1))
	f.Add("run=a n=run=a n=1 t=2 run=a n=x", uint64(2))
	f.Add(`{"text":"run=a n=000000001 t=1764028140123456789 the"}`, uint64(3))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		whole, broken := scan("a", text)
		if want := strings.Count(text, "run=a n="); len(whole)+broken != want {
			t.Fatalf("%d marks and %d broken in %q, which begins %d", len(whole), broken, text, want)
		}
		r := rand.New(rand.NewPCG(seed, 0))
		var pieces []string
		for rest := text; ; {
			i := r.IntN(len(rest) + 1)
			pieces, rest = append(pieces, rest[:i]), rest[i:]
			if rest == "" {
				break
			}
		}
		parts, brokenParts := scan("a", append(pieces, "")...)
		if !slices.Equal(whole, parts) || broken != brokenParts {
			t.Fatalf("%q: %v and %d broken, but in pieces %q: %v and %d", text, whole, broken, pieces, parts, brokenParts)
		}
	})
}
