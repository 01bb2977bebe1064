package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/history"
)

// Messages of a server whose clock was ahead are imported with the time of
// their import, on a running server and without one.
func TestImportFromAClockThatWasAhead(t *testing.T) {
	file := archiveOf(t, []history.Entry{
		{Seq: 1, At: time.Unix(1700000000, 0), Data: []byte(`{"text":"a","timestamp":1700000000000}`)},
		{Seq: 2, At: time.Now().AddDate(20, 0, 0), Data: []byte(`{"text":"b","timestamp":99999999999999}`)},
	})
	name := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	running := inMemory(t)
	serving(t, running)
	for why, env := range map[string][]string{"running": running, "offline": operable(t, durable(t, filepath.Join(t.TempDir(), "history")))} {
		runVerb(t, 0, env, "import", name)
		out, _ := runVerb(t, 0, env, "export")
		if !strings.Contains(out, `\"timestamp\":1700000000000}`) || strings.Contains(out, "99999999999999") || !strings.Contains(out, `\"text\":\"b\"`) {
			t.Errorf("%s: exported %s", why, out)
		}
		year := time.Now().AddDate(20, 0, 0).UTC().Format(`"at":"2006`)
		if strings.Contains(out, year) {
			t.Errorf("%s: a time after now: %s", why, out)
		}
	}
}
