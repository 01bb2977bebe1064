package journal_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

var kills = flag.Int("kills", 100, "how often the crash test kills its child; a tenth with -short")

const crashDir = "JOURNAL_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crash(dir)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// crash is the child process. It appends and clears until it is killed, and
// writes each acknowledged change to its standard output.
func crash(dir string) {
	j, err := journal.Open(config(dir))
	if err != nil {
		panic(err)
	}
	l, err := history.Open(ctx, history.Config{Keep: 40, Store: j})
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		if i%30 == 29 {
			fmt.Println("clearing", l.Position().Seq())
			if _, err := l.Clear(ctx, nil); err != nil {
				panic(err)
			}
			fmt.Println("cleared", l.Position().Seq())
		}
		pos, err := l.Append(context.Background(), text(l.Position().Seq()+1))
		if err != nil {
			panic(err)
		}
		fmt.Println("stored", pos.Seq())
	}
}

// text returns the content of entry seq. Its length depends on seq.
func text(seq uint64) []byte {
	return []byte(strings.Repeat(strconv.FormatUint(seq, 10)+" ", 1+int(seq%97)*7))
}

// TestKilled kills a process many times. Each time, all entries that the
// journal acknowledged must be there.
func TestKilled(t *testing.T) {
	n := *kills
	if testing.Short() {
		n = max(n/10, 1)
	}
	// A killed process loses nothing of the page cache, so no disk is needed.
	dir, err := os.MkdirTemp(memory, "relayguard-journal-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	drops := 0
	var past said
	for round := range n {
		past = runAndKill(t, dir, rand.IntN(60), past)
		cfg := config(dir)
		cfg.OnDropped = func(d journal.Dropped) {
			drops++
			if d.Missing > 0 {
				t.Errorf("round %d: %+v", round, d)
			}
		}
		l := open(t, cfg, 40)
		b := l.Since(history.Oldest())
		for i, e := range b.Entries {
			if string(e.Data) != string(text(e.Seq)) {
				t.Fatalf("round %d: entry %d has another's content", round, e.Seq)
			}
			if i > 0 && e.Seq != b.Entries[i-1].Seq+1 {
				t.Fatalf("round %d: %d follows %d", round, e.Seq, b.Entries[i-1].Seq)
			}
			if e.Seq <= past.cleared {
				t.Fatalf("round %d: %d was cleared", round, e.Seq)
			}
		}
		switch kept := uint64(len(b.Entries)); {
		case l.Position().Seq() < past.stored:
			t.Fatalf("round %d: %d was acknowledged, the last is %d", round, past.stored, l.Position().Seq())
		case past.clearing && kept == 0:
			past.cleared = l.Position().Seq() // the Clear may have happened or not
		case kept < min(past.stored-past.cleared, 40) || kept > 0 && b.Entries[kept-1].Seq < past.stored:
			t.Fatalf("round %d: after %+v there are %d entries", round, past, kept)
		}
		past.stored = l.Position().Seq()
		l.Close()
	}
	t.Logf("%d kills, %d incomplete records cut off", n, drops)
}

// said is what the child processes have written to their standard output.
type said struct {
	stored, cleared uint64 // the highest sequence numbers
	clearing        bool   // the child was killed during a Clear
}

// runAndKill runs a child and kills it after it has written this many lines. It
// returns past with what the child wrote.
func runAndKill(t *testing.T, dir string, lines int, past said) said {
	past.clearing = false
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(out)
	for i := 0; scan.Scan(); i++ {
		if i == lines {
			cmd.Process.Kill() // lines that are in the pipe still count
		}
		what, number, _ := strings.Cut(scan.Text(), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatal(err) // each line is one write, so none is cut
		}
		switch what {
		case "stored":
			past.stored = seq
		case "clearing":
			past.clearing = true
		case "cleared":
			past.cleared, past.clearing = seq, false
		}
	}
	cmd.Process.Kill()
	if cmd.Wait() == nil {
		t.Fatal("the child ended by itself")
	}
	return past
}
