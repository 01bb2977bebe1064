package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

func open(t testing.TB, cfg history.Config) *history.Log {
	t.Helper()
	l, err := history.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *history.Log, data ...string) (last history.Position) {
	t.Helper()
	for _, d := range data {
		var err error
		if last, err = l.Append(context.Background(), []byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

func texts(b history.Batch) []string {
	list := []string{}
	for _, e := range b.Entries {
		list = append(list, string(e.Data))
	}
	return list
}

// read returns the next batch of r, without waiting.
func read(t testing.TB, r *history.Reader) history.Batch {
	t.Helper()
	b, err := r.TryNext()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// want fails the test if b is not as the other parameters say. An empty note
// and a missed of 0 mean that b has none.
func want(t testing.TB, what string, b history.Batch, reset bool, note string, missed uint64, data ...string) {
	t.Helper()
	if b.Reset != reset || string(b.Note) != note || b.Missed != missed || !slices.Equal(texts(b), data) {
		t.Errorf("%s: got reset %v, note %q, missed %d, %q; want %v, %q, %d, %q",
			what, b.Reset, b.Note, b.Missed, texts(b), reset, note, missed, data)
	}
}

func TestOpenReportsEveryMistake(t *testing.T) {
	for _, row := range []struct {
		why  string
		cfg  history.Config
		want []history.ConfigError
	}{
		{"the zero value is the documented default", history.Config{}, nil},
		{"one mark is enough", history.Config{Keep: 5}, nil},
		{"equal marks are a strict limit", history.Config{Keep: 5, TrimAt: 5}, nil},
		{"no fifth of 1", history.Config{Keep: 1}, nil},
		{"all at once", history.Config{Keep: -1, TrimAt: -1, MaxAge: -1, MaxBytes: -1}, []history.ConfigError{
			{"Config.Keep", history.ConfigNegative}, {"Config.TrimAt", history.ConfigNegative},
			{"Config.MaxAge", history.ConfigNegative}, {"Config.MaxBytes", history.ConfigNegative}}},
		{"marks crossed", history.Config{Keep: 10, TrimAt: 9}, []history.ConfigError{{"Config.TrimAt", history.ConfigTooSmall}}},
		{"the default Keep counts too", history.Config{TrimAt: 500}, []history.ConfigError{{"Config.TrimAt", history.ConfigTooSmall}}},
	} {
		_, err := history.Open(context.Background(), row.cfg)
		var got []history.ConfigError
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				var ce *history.ConfigError
				if !errors.As(e, &ce) {
					t.Fatalf("%s: %T", row.why, e)
				}
				got = append(got, *ce)
				if !errors.Is(err, ce.Reason) || e.Error() != "history: "+ce.Field+" "+ce.Reason.Error() {
					t.Errorf("%s: %v is not what its field and reason say", row.why, e)
				}
			}
		}
		if !slices.Equal(got, row.want) || (err == nil) != (row.want == nil) {
			t.Errorf("%s: got %v, want %v", row.why, err, row.want)
		}
	}
}

// TestCountRetention holds the numbers of the security guide: more than 1,200
// entries cause a clean-up, which leaves 1,000.
func TestCountRetention(t *testing.T) {
	var trims []history.Trim
	l := open(t, history.Config{OnTrim: func(tr history.Trim) { trims = append(trims, tr) }})
	for i := 1; i <= 3000; i++ {
		add(t, l, fmt.Sprint(i))
		kept := i
		if i > 1200 {
			kept = 1000 + (i-1201)%201
		}
		if l.Stats().Entries != kept {
			t.Fatalf("after %d appends: %d kept, want %d", i, l.Stats().Entries, kept)
		}
		if all := l.Since(history.Oldest()).Entries; string(all[0].Data) != fmt.Sprint(i-kept+1) {
			t.Fatalf("after %d appends the oldest is %s", i, all[0].Data)
		}
	}
	if n := (3000-1201)/201 + 1; len(trims) != n || trims[0] != (history.Trim{Reason: history.TrimByCount, Dropped: 201, Kept: 1000}) {
		t.Errorf("trims: %v", trims)
	}
}

func TestByteRetention(t *testing.T) {
	l := open(t, history.Config{MaxBytes: 60})
	add(t, l, "0123456789", "1123456789", "2123456789", "3123456789", "4123456789", "5123456789")
	if s := l.Stats(); s.Bytes != 60 || s.Entries != 6 {
		t.Fatalf("full but not over: %+v", s)
	}
	add(t, l, "x")
	want(t, "61 bytes: cut to 50 or less", l.Since(history.Oldest()), false, "", 0, "2123456789", "3123456789", "4123456789", "5123456789", "x")
	whole := string(bytes.Repeat([]byte("w"), 60))
	add(t, l, whole)
	want(t, "the newest stays, though over five sixths", l.Since(history.Oldest()), false, "", 0, whole)

	if _, err := l.Append(context.Background(), make([]byte, 61)); !errors.Is(err, history.ErrTooLarge) {
		t.Errorf("an entry that never fits: %v", err)
	}
	if _, err := l.Replace(context.Background(), nil, []byte("a"), make([]byte, 61)); !errors.Is(err, history.ErrTooLarge) {
		t.Errorf("Replace with one that never fits: %v", err)
	}
	want(t, "neither changed anything", l.Since(history.Oldest()), false, "", 0, whole)
	if s := l.Stats(); s.TrimmedByBytes != 7 || s.Bytes != 60 {
		t.Errorf("%+v", s)
	}
}

func TestReset(t *testing.T) {
	ctx := context.Background()
	l := open(t, history.Config{Keep: 3, TrimAt: 3})
	fresh := l.Reader(history.Oldest())
	before := add(t, l, "a", "b")
	live := l.Reader(before)
	late := l.Reader(history.Oldest())

	if _, err := l.Clear(ctx, []byte("again")); err != nil {
		t.Fatal(err)
	}
	if b := l.Since(history.Oldest()); b.From != b.To {
		t.Errorf("nothing is kept between %v and %v", b.From, b.To)
	}
	want(t, "a Clear alone is a batch", read(t, live), true, "again", 0)
	want(t, "but only once", read(t, live), false, "", 0)
	add(t, l, "c", "d")
	want(t, "after it, live", read(t, live), false, "", 0, "c", "d")
	want(t, "unread entries of the old epoch are gone", read(t, fresh), true, "again", 0, "c", "d")

	if n, err := l.Delete(ctx, 3, 99); n != 1 || err != nil {
		t.Fatalf("Delete: %d, %v", n, err)
	}
	want(t, "a reader of the deleted entry gets a Reset, without the old note", read(t, live), true, "", 0, "d")
	want(t, "a reader that missed the Clear gets its note", read(t, late), true, "again", 0, "d")
	want(t, "so does a reader that comes back later", l.Since(before), true, "again", 0, "d")
	want(t, "a new reader gets no Reset", l.Since(history.Oldest()), false, "", 0, "d")

	at := l.Position()
	if n, err := l.Delete(ctx, 3); n != 0 || err != nil || l.Position() != at {
		t.Errorf("deleting what is not there changes nothing: %d, %v", n, err)
	}
	if _, err := l.Replace(ctx, []byte("one")); err != nil {
		t.Fatal(err)
	}
	l.Replace(ctx, []byte("one and a half"))
	want(t, "the last note counts", l.Since(at), true, "one and a half", 0)
	pos, _ := l.Replace(ctx, []byte("two"), []byte("v"), []byte("w"), []byte("x"), []byte("y"))
	want(t, "retention applies, and what is left is not all that followed the note", read(t, live), true, "", 0, "w", "x", "y")
	if live.Position() != pos || pos.Seq() != 8 {
		t.Errorf("at %v, want %v; sequence numbers go on: %d", live.Position(), pos, pos.Seq())
	}

	pos, _ = l.Replace(ctx, []byte("secret"), []byte("secret"), []byte("z"))
	l.Delete(ctx, pos.Seq()-1)
	want(t, "a note is erased with the entry that says the same", l.Since(at), true, "", 0, "z")
}

func TestMissed(t *testing.T) {
	l := open(t, history.Config{Keep: 2, TrimAt: 3})
	r := l.Reader(history.Oldest())
	add(t, l, "a")
	want(t, "first", read(t, r), false, "", 0, "a")
	add(t, l, "b", "c", "d")
	want(t, "b went", read(t, r), false, "", 1, "c", "d")
	add(t, l, "e", "f", "g", "h")
	want(t, "e and f went", read(t, r), false, "", 2, "g", "h")
	want(t, "a new reader misses nothing", read(t, l.Reader(history.Oldest())), false, "", 0, "g", "h")
}

func TestForeignPositions(t *testing.T) {
	l, other := open(t, history.Config{}), open(t, history.Config{})
	add(t, l, "a")
	far := add(t, other, "x", "y", "z")
	want(t, "of another log", l.Since(far), true, "", 0, "a")

	old := l.Position()
	store := &fakeStore{}
	s := openStore(t, store)
	ahead := add(t, s, "a", "b")
	store.saved.Entries, store.saved.Last = store.saved.Entries[:1], 1
	s = openStore(t, store)
	want(t, "ahead of a log that lost its end", s.Since(ahead), true, "", 0, "a")

	l.Clear(context.Background(), []byte("note"))
	want(t, "of another log, after a Clear", l.Since(far), true, "note", 0)
	want(t, "of the last epoch", l.Since(old), true, "note", 0)
}

func TestPosition(t *testing.T) {
	l := open(t, history.Config{})
	p := add(t, l, "a")
	for _, p := range []history.Position{p, history.Oldest(), history.Latest(), history.Last(1), history.Last(math.MaxInt),
		history.SinceTime(time.Now()), history.SinceTime(time.Unix(0, 0)), history.SinceTime(time.Unix(math.MaxInt32*100, 0))} {
		if back, err := history.ParsePosition(p.String()); err != nil || back != p {
			t.Errorf("%s: %v, %v", p, back, err)
		}
	}
	if p.Seq() != 1 || history.Oldest().Seq() != 0 || history.Latest().Seq() != 0 || history.Last(7).Seq() != 0 {
		t.Error("Seq is of entries only")
	}
	seen := map[history.Position]bool{p: true}
	if !seen[l.Position()] || seen[add(t, l, "b")] {
		t.Error("positions are keys")
	}
	for _, row := range []struct{ why, text string }{
		{"nothing", ""},
		{"a word", "Oldest"},
		{"too short", "AAAAAAAAAA"},
		{"log 0 is none", "AAAAAAAAAAAAAA"},
		{"something behind it", p.String() + "AAAA"},
		{"padding", p.String() + "="},
		{"a line end, which base64 skips", p.String()[:4] + "\n" + p.String()[4:]},
		{"standard alphabet", "+/+/+/+/+/+/AQ"},
		{"a longer spelling of a small number", "__________-AAAE"},
		{"an unfinished number", "__________-AgA"},
		{"more than 64 bits", "______________________________________"},
		{"no number of entries", "last-"},
		{"another spelling of latest", "last-0"},
		{"a number with a zero before it", "last-07"},
		{"a sign", "last-+7"},
		{"a negative time", "since--7"},
		{"a time of people", "since-2026-11-24"},
		{"more than 63 bits", "since-9223372036854775808"},
		{"far too long", string(bytes.Repeat([]byte("A"), 1<<16))},
	} {
		if got, err := history.ParsePosition(row.text); err == nil || err.Error() != "history: malformed position" {
			t.Errorf("%s: %v, %v", row.why, got, err)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "oldest", "latest", "last-10", "since-1764064974000000000", "last-0", "since-01", "AAAAAAAAAAEBAQ", "__________8BAQ", "_________w", "a=b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := history.ParsePosition(s)
		if err != nil {
			if p != (history.Position{}) {
				t.Fatalf("%q: an error and %v", s, p)
			}
			return
		}
		if p.String() != s {
			t.Fatalf("%q is %q after a round trip", s, p)
		}
		var again history.Position
		if err := again.UnmarshalText([]byte(s)); err != nil || again != p {
			t.Fatalf("%q: %v, %v", s, again, err)
		}
		l := open(t, history.Config{})
		add(t, l, "a")
		start := p == history.Oldest() || p == history.Latest() || strings.HasPrefix(s, "last-") || strings.HasPrefix(s, "since-")
		if b := l.Since(p); b.Reset == start {
			t.Fatalf("a guessed position is believed: %+v", b)
		}
	})
}

func TestStarts(t *testing.T) {
	start := time.Now().Add(-time.Hour)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	l := open(t, history.Config{Keep: 4, TrimAt: 4})
	for i, d := range []string{"gone", "a", "b", "c", "d"} { // at the minutes 0, 10, 20, 30, 40
		l.AppendAt(context.Background(), []byte(d), at(10*i))
	}
	for _, row := range []struct {
		why  string
		from history.Position
		want []string
	}{
		{"the last one", history.Last(1), []string{"d"}},
		{"the last two", history.Last(2), []string{"c", "d"}},
		{"all that are kept", history.Last(4), []string{"a", "b", "c", "d"}},
		{"more than are kept is nothing missed", history.Last(math.MaxInt), []string{"a", "b", "c", "d"}},
		{"none is Latest", history.Last(0), []string{}},
		{"fewer than none too", history.Last(-1), []string{}},
		{"an entry's own time", history.SinceTime(at(30)), []string{"c", "d"}},
		{"just after it", history.SinceTime(at(30).Add(1)), []string{"d"}},
		{"before all that are kept", history.SinceTime(at(0)), []string{"a", "b", "c", "d"}},
		{"the zero time", history.SinceTime(time.Time{}), []string{"a", "b", "c", "d"}},
		{"after all", history.SinceTime(at(41)), []string{}},
		{"beyond 64 bits", history.SinceTime(time.Unix(math.MaxInt64/2, 0)), []string{}},
	} {
		want(t, row.why, l.Since(row.from), false, "", 0, row.want...)
		r := l.Reader(row.from)
		want(t, row.why+", by a reader", read(t, r), false, "", 0, row.want...)
		if r.Position() != l.Position() {
			t.Errorf("%s: the reader is at %v", row.why, r.Position())
		}
	}
	later := l.Reader(history.Last(1))
	add(t, l, "e")
	want(t, "a reader's start is decided when it is made", read(t, later), false, "", 0, "d", "e")

	l.Replace(context.Background(), nil, []byte("x"), []byte("y"))
	want(t, "entries of another epoch do not count", l.Since(history.Last(9)), false, "", 0, "x", "y")
	l.Clear(context.Background(), nil)
	want(t, "an empty log", l.Since(history.Last(2)), false, "", 0)
	want(t, "an empty log, by time", l.Since(history.SinceTime(start)), false, "", 0)
}

// A batch does not change when the log changes, and the log does not change
// when a reader appends to the slice of its batch.
func TestBatchesAreImmutable(t *testing.T) {
	ctx := context.Background()
	l := open(t, history.Config{Keep: 4, TrimAt: 6})
	data := []byte("a")
	l.Append(ctx, data)
	data[0] = 'X'
	add(t, l, "b", "c")
	held := l.Since(history.Oldest())
	add(t, l, "d")
	_ = append(held.Entries, history.Entry{Data: []byte("intruder")})
	add(t, l, "e", "f")
	want(t, "log", l.Since(history.Oldest()), false, "", 0, "a", "b", "c", "d", "e", "f")
	add(t, l, "g")
	l.Delete(ctx, 5)
	l.Clear(ctx, nil)
	add(t, l, "h")
	want(t, "held", held, false, "", 0, "a", "b", "c")
}

func TestEndedContext(t *testing.T) {
	l := open(t, history.Config{})
	add(t, l, "a")
	r := l.Reader(history.Oldest())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err1 := l.Append(ctx, []byte("b"))
	_, err2 := l.Replace(ctx, nil)
	_, err3 := l.Delete(ctx, 1)
	_, err4 := r.Next(ctx)
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	want(t, "nothing changed, the reader has not moved", read(t, r), false, "", 0, "a")
}

func TestStats(t *testing.T) {
	ctx := context.Background()
	start := time.Unix(1_000_000, 0)
	l := open(t, history.Config{Keep: 2, TrimAt: 3, MaxAge: math.MaxInt64})
	if s := l.Stats(); s != (history.Stats{}) {
		t.Errorf("new: %+v", s)
	}
	for i := range 4 {
		l.AppendAt(ctx, []byte("abc"), start.Add(time.Duration(i)*time.Second))
	}
	l.AppendAt(ctx, []byte("de"), start) // the clock was set back
	l.Delete(ctx, 4)
	got := l.Stats()
	exp := history.Stats{Entries: 2, Bytes: 5, Oldest: start.Add(2 * time.Second), Latest: start.Add(3 * time.Second),
		Appended: 5, TrimmedByCount: 2, Deleted: 1}
	if got != exp {
		t.Errorf("got  %+v\nwant %+v", got, exp)
	}
	l.Clear(ctx, nil)
	if got := l.Stats(); got.Replaced != 1 || got.Entries != 0 || got.Bytes != 0 || !got.Oldest.IsZero() {
		t.Errorf("cleared: %+v", got)
	}
}

// A reader that must stop at an entry reads on from there later.
func TestUntil(t *testing.T) {
	l := open(t, history.Config{Keep: 4, TrimAt: 4, Pins: pinsOf})
	first := add(t, l, "a=1", "b=1")
	add(t, l, "2", "3", "4", "5")
	all := l.Since(history.Oldest())
	for _, row := range []struct {
		why  string
		seq  uint64
		want []string
		pins string
		to   uint64
	}{
		{"everything", 6, []string{"2", "3", "4", "5"}, "a=1@1 b=1@2", 6},
		{"some", 4, []string{"2", "3"}, "a=1@1 b=1@2", 4},
		{"nothing", 2, []string{}, "a=1@1 b=1@2", 2},
		{"not even all pins", 1, []string{}, "a=1@1", 2},
		{"nothing at all", 0, []string{}, "", 2},
	} {
		b := all.Until(row.seq)
		if got := texts(b); !slices.Equal(got, row.want) || b.To.Seq() != row.to || pinned(b.Pins()) != row.pins {
			t.Errorf("%s: %q, pins %q, to %d", row.why, got, pinned(b.Pins()), b.To.Seq())
		}
		rest := l.Since(b.To)
		if got := slices.Concat(texts(b), texts(rest)); !slices.Equal(got, texts(all)) {
			t.Errorf("%s: read on, %q", row.why, got)
		}
	}
	if _, err := l.Replace(ctx0, nil, []byte("x")); err != nil {
		t.Fatal(err)
	}
	b := l.Since(first).Until(6)
	if !b.Reset || len(b.Entries) > 0 {
		t.Errorf("a Reset that shows nothing yet: %+v", b)
	}
	want(t, "and later", l.Since(b.To), false, "", 0, "x")
}

// A reader that takes a batch in parts gets all of it, and nothing twice.
func TestFirst(t *testing.T) {
	l := open(t, history.Config{})
	for i := range 10 {
		add(t, l, fmt.Sprint(i))
	}
	for _, n := range []int{-1, 0, 1, 3, 9, 10, 11} {
		pos, got := history.Oldest(), ""
		for {
			whole := l.Since(pos)
			if whole.Empty() {
				break
			}
			part := whole.First(n)
			if want := min(max(n, 1), len(whole.Entries)); len(part.Entries) != want || part.From != whole.From {
				t.Fatalf("First(%d) of %d has %d", n, len(whole.Entries), len(part.Entries))
			}
			if part.To.Seq() != part.Entries[len(part.Entries)-1].Seq || len(part.Entries) == len(whole.Entries) != (part.To == whole.To) {
				t.Fatalf("First(%d) ends at %d", n, part.To.Seq())
			}
			for _, e := range part.Entries {
				got += string(e.Data)
			}
			pos = part.To
		}
		if got != "0123456789" {
			t.Errorf("in parts of %d: %s", n, got)
		}
	}
}
