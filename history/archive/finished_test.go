package archive_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
	"github.com/relayguard/relayguard/history/journal"
)

// A finished log is finished after an export and an import, into a log and into
// a Store. An archive of any other log is of version 1, as before.
func TestFinished(t *testing.T) {
	for _, finished := range []bool{false, true} {
		var file bytes.Buffer
		done, err := archive.Export(ctx, &file, slices.Values(samples), archive.ExportConfig{Finished: finished, Exported: noon})
		if err != nil || done.Finished != finished {
			t.Fatal(done, err)
		}
		head, _, _ := strings.Cut(file.String(), "\n")
		if want := map[bool]string{
			false: `{"format":"relayguard-history","version":1,"exported":"2026-11-24T12:00:00Z"}`,
			true:  `{"format":"relayguard-history","version":2,"exported":"2026-11-24T12:00:00Z","finished":true}`,
		}[finished]; head != want {
			t.Errorf("got %s, want %s", head, want)
		}

		l, _ := history.Open(ctx, history.Config{})
		viewer := l.Reader(history.Latest())
		done, err = archive.ImportLog(ctx, l, nil, bytes.NewReader(file.Bytes()), archive.ImportConfig{})
		if err != nil || !done.Done || done.Finished != finished || l.Finished() != finished {
			t.Errorf("finished is %v, want %v; %+v, %v", l.Finished(), finished, done, err)
		}
		if b, err := viewer.TryNext(); err != nil || len(b.Entries) != len(samples) {
			t.Errorf("a viewer sees %+v, %v", b, err)
		}
		if _, err := viewer.TryNext(); errors.Is(err, history.ErrFinished) != finished {
			t.Errorf("then %v", err)
		}
		_, err = archive.ImportLog(ctx, l, nil, bytes.NewReader(file.Bytes()), archive.ImportConfig{})
		if errors.Is(err, history.ErrFinished) != finished || finished != (reason(err) == archive.ReasonFailed) {
			t.Errorf("an import into it: %v", err)
		}

		// An operator who imports into a Store may also take back its end.
		cfg := journal.Config{Dir: t.TempDir(), Keys: [][]byte{make([]byte, journal.KeySize)}}
		for _, before := range []bool{false, true} {
			reopen(t, cfg, func(j *journal.Journal) {
				if _, err := archive.ImportStore(ctx, j, bytes.NewReader(file.Bytes()), archive.ImportConfig{}); err != nil {
					t.Fatal(err)
				}
			})
			reopen(t, cfg, func(j *journal.Journal) {
				l, err := history.Open(ctx, history.Config{Store: j})
				if err != nil {
					t.Fatal(err)
				}
				if l.Finished() != finished || l.Stats().Entries != len(samples) {
					t.Errorf("finished before: %v; now %v, want %v", before, l.Finished(), finished)
				}
				if err := l.Finish(ctx); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// An archive without entries does not clear a finished log either.
func TestEmptyIntoFinished(t *testing.T) {
	var file bytes.Buffer
	if _, err := archive.Export(ctx, &file, slices.Values([]history.Entry(nil)), archive.ExportConfig{}); err != nil {
		t.Fatal(err)
	}
	l, _ := history.Open(ctx, history.Config{})
	l.Append(ctx, []byte("x"))
	l.Finish(ctx)
	_, err := archive.ImportLog(ctx, l, nil, &file, archive.ImportConfig{})
	if !errors.Is(err, history.ErrFinished) || l.Stats().Entries != 1 {
		t.Errorf("%v, %+v", err, l.Stats())
	}
}

func reopen(t *testing.T, cfg journal.Config, use func(*journal.Journal)) {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	use(j)
}
