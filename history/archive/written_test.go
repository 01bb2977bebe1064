package archive_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
	"github.com/relayguard/relayguard/history/journal"
)

// What Export writes without an error, Read accepts.
func TestWrittenIsReadable(t *testing.T) {
	ahead := time.Now().Add(time.Hour) // with a monotonic reading
	for _, row := range []struct {
		why     string
		entries []history.Entry
		ok      bool
	}{
		{"the clock was set back", []history.Entry{{Seq: 1, At: noon}, {Seq: 2, At: noon.Add(-time.Second)}, {Seq: 3, At: noon.Add(time.Second)}}, true},
		{"far back, and zones", []history.Entry{{Seq: 1, At: noon.In(time.FixedZone("", 3600))}, {Seq: 2, At: time.Unix(0, 0)}}, true},
		{"monotonic order only", []history.Entry{{Seq: 1, At: ahead}, {Seq: 2, At: ahead.Add(time.Minute).Round(0).Add(-2 * time.Hour)}}, true},
		{"no time", []history.Entry{{Seq: 5}, {Seq: 6}}, true},
		{"before the year 0", []history.Entry{{Seq: 1, At: time.Unix(-1<<40, 0)}, {Seq: 2}}, true},
		{"after the year 9999", []history.Entry{{Seq: 1, At: noon}, {Seq: 2, At: time.Unix(1<<40, 5)}, {Seq: 3, At: time.Unix(1<<41, 0)}}, true},
		{"a number twice", []history.Entry{{Seq: 1, At: noon}, {Seq: 1, At: noon}}, false},
		{"numbers go back", []history.Entry{{Seq: 2, At: noon}, {Seq: 1, At: noon}}, false},
		{"number 0", []history.Entry{{Seq: 0, At: noon}}, false},
	} {
		var b bytes.Buffer
		_, err := archive.Export(ctx, &b, slices.Values(row.entries), archive.ExportConfig{})
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", row.why, err)
		}
		if err != nil {
			continue
		}
		got, _, err := archive.Read(ctx, &b, archive.ImportConfig{})
		if err != nil || len(got) != len(row.entries) {
			t.Errorf("%s: %d entries, %v", row.why, len(got), err)
		}
	}
}

// For all entries: what Export writes without an error, Read accepts.
func FuzzWritten(f *testing.F) {
	f.Add(uint64(1), int64(0), int64(0), "a", uint64(2), int64(-1), int64(5), "\xff")
	f.Add(uint64(1), int64(1<<40), int64(0), "\u2028<\x00", uint64(9), int64(-1<<50), int64(5), "")
	f.Fuzz(func(t *testing.T, s1 uint64, t1, n1 int64, d1 string, s2 uint64, t2, n2 int64, d2 string) {
		entries := []history.Entry{{Seq: s1, At: time.Unix(t1, n1), Data: []byte(d1)}, {Seq: s2, At: time.Unix(t2, n2), Data: []byte(d2)}}
		var b bytes.Buffer
		if _, err := archive.Export(ctx, &b, slices.Values(entries), archive.ExportConfig{Exported: noon}); err != nil {
			if 0 < s1 && s1 < s2 {
				t.Fatal(err)
			}
			return
		}
		got, _, err := archive.Read(ctx, &b, archive.ImportConfig{})
		if err != nil || len(got) != 2 || string(got[0].Data) != d1 || string(got[1].Data) != d2 {
			t.Fatalf("%v: %v, %v", entries, got, err)
		}
	})
}

// Entries with times after now are imported with the current time.
func TestImportFromAClockThatWasAhead(t *testing.T) {
	file := export(t, []history.Entry{{Seq: 1, At: noon.AddDate(-1, 0, 0), Data: []byte("a")}, {Seq: 2, At: time.Now().AddDate(20, 0, 0), Data: []byte("b")}})
	j, err := journal.Open(journal.Config{Dir: t.TempDir(), Keys: [][]byte{make([]byte, journal.KeySize)}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	kept := &recorder{Store: j}
	if _, err := archive.ImportStore(ctx, kept, bytes.NewReader(file), archive.ImportConfig{}); err != nil {
		t.Fatal(err)
	}
	if e := kept.saved.Entries; len(e) != 2 || !e[0].At.Equal(noon.AddDate(-1, 0, 0)) || e[1].At.After(time.Now()) {
		t.Errorf("saved %v", e)
	}
}

// recorder remembers what is saved.
type recorder struct {
	history.Store
	saved history.Saved
}

func (r *recorder) Replace(c context.Context, s history.Saved) error {
	r.saved = s
	return r.Store.Replace(c, s)
}
