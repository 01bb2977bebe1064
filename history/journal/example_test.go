package journal_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/journal"
)

// A log with a journal survives a restart.
func Example() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	key := make([]byte, journal.KeySize) // in a real program, it comes from a secret store
	rand.Read(key)

	for run := range 2 {
		store, err := journal.Open(journal.Config{Dir: dir, Keys: [][]byte{key}})
		if err != nil {
			panic(err)
		}
		log, err := history.Open(ctx, history.Config{Store: store})
		if err != nil {
			panic(err)
		}
		fmt.Printf("run %d finds %d entries\n", run+1, log.Stats().Entries)
		log.Append(ctx, []byte("hello")) // is on disk afterwards
		log.Close()
	}
	// Output:
	// run 1 finds 0 entries
	// run 2 finds 1 entries
}

// To rotate the master key, put the new one first and keep the old one until
// Rewrap has succeeded.
func ExampleJournal_Rewrap() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	oldKey, newKey := make([]byte, journal.KeySize), make([]byte, journal.KeySize)
	rand.Read(oldKey)
	rand.Read(newKey)
	for _, ring := range [][][]byte{{oldKey}, {newKey, oldKey}, {newKey}} {
		store, _ := journal.Open(journal.Config{Dir: dir, Keys: ring})
		log, err := history.Open(ctx, history.Config{Store: store})
		if err != nil {
			panic(err)
		}
		if err := store.Rewrap(ctx); err != nil {
			panic(err)
		}
		log.Append(ctx, []byte("one more"))
		fmt.Println(log.Stats().Entries)
		log.Close()
	}
	// Output:
	// 1
	// 2
	// 3
}

// The logs of a service, each in an encrypted file, and how to remove one with
// everything that is on disk.
func ExampleForSet() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	key := make([]byte, journal.KeySize) // from a file, in a real program
	rand.Read(key)
	store, err := journal.ForSet(journal.Config{Dir: dir, Keys: [][]byte{key}})
	if err != nil {
		panic(err)
	}
	logs, err := history.NewSet(history.SetConfig{Store: store, MaxLogs: 100})
	if err != nil {
		panic(err)
	}
	defer logs.Close()
	log, release, err := logs.Create(ctx, "build-7")
	if err != nil {
		panic(err)
	}
	log.Append(ctx, []byte("compiling"))
	release()

	remove := func(name string) error {
		log, release, err := logs.Acquire(ctx, name)
		if err != nil {
			return err
		}
		defer release()
		if err := log.Finish(ctx); err != nil {
			return err
		}
		if _, err := log.Clear(ctx, nil); err != nil {
			return err
		}
		return logs.Remove(ctx, name, func(context.Context) error {
			return os.RemoveAll(journal.SetDir(dir, name))
		})
	}
	fmt.Println(remove("build-7"))
	fmt.Println(remove("build-7"))
	// Output:
	// <nil>
	// history: there is no log of this name
}

// Wrong: a backup of the whole directory. It holds the key of the segment, so
// the entries can be read even after a Clear. Right: a backup without *.key. It
// cannot be restored either; for backups to restore, use package archive.
func Example_incorrect() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	key := make([]byte, journal.KeySize)
	rand.Read(key)
	store, _ := journal.Open(journal.Config{Dir: dir, Keys: [][]byte{key}})
	log, _ := history.Open(ctx, history.Config{Store: store})
	log.Append(ctx, []byte("a secret"))

	for _, pattern := range []string{"*", "*.segment"} { // wrong, right
		backup, _ := os.MkdirTemp("", "")
		defer os.RemoveAll(backup)
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			data, _ := os.ReadFile(name)
			os.WriteFile(filepath.Join(backup, filepath.Base(name)), data, 0o600)
		}
		log.Clear(ctx, nil)

		copied, _ := journal.Open(journal.Config{Dir: backup, Keys: [][]byte{key}})
		saved, _ := copied.Load(ctx)
		fmt.Printf("a copy of %s still has %d entries\n", pattern, len(saved.Entries))
		copied.Close()
		log.Append(ctx, []byte("another secret"))
	}
	log.Close()
	// Output:
	// a copy of * still has 1 entries
	// a copy of *.segment still has 0 entries
}
