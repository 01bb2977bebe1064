package history_test

import (
	"context"
	"fmt"
	"time"

	"github.com/relayguard/relayguard/history"
)

// One reader per connection gets the kept entries and then the new ones. No
// queue is needed.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	log, err := history.Open(ctx, history.Config{}) // keeps 1,000 entries, trims above 1,200
	if err != nil {
		panic(err)
	}
	defer log.Close()
	log.Append(ctx, []byte("hello"))

	viewer := log.Reader(history.Oldest())
	for range 2 {
		batch, err := viewer.Next(ctx) // all new entries; waits only if there are none
		if err != nil {
			return
		}
		for _, entry := range batch.Entries {
			fmt.Printf("%s\n", entry.Data)
		}
		log.Append(ctx, []byte("world"))
	}
	// Output:
	// hello
	// world
}

// A client that lost its connection sends its last position and gets the
// entries that it missed. After a Clear, it gets a Reset.
func ExampleParsePosition() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	first, _ := log.Append(ctx, []byte("one"))
	token := first.String() // sent with the message
	log.Append(ctx, []byte("two"))

	pos, err := history.ParsePosition(token) // received from the client
	if err != nil {
		pos = history.Oldest()
	}
	fmt.Printf("%s\n", log.Since(pos).Entries[0].Data)

	log.Clear(ctx, []byte("restarted"))
	batch := log.Since(pos)
	fmt.Printf("reset %v, note %s, %d entries\n", batch.Reset, batch.Note, len(batch.Entries))
	// Output:
	// two
	// reset true, note restarted, 0 entries
}

// Delete begins a new epoch, so that readers that have read the deleted entry
// replace what they show.
func ExampleLog_Delete() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	log.Append(ctx, []byte("public"))
	pos, _ := log.Append(ctx, []byte("my address"))
	viewer := log.Reader(log.Position())

	n, _ := log.Delete(ctx, pos.Seq())
	batch, _ := viewer.TryNext()
	fmt.Printf("%d deleted; reset %v, %d left: %s\n", n, batch.Reset, len(batch.Entries), batch.Entries[0].Data)
	// Output:
	// 1 deleted; reset true, 1 left: public
}

// Wrong: a snapshot, and then a reader that begins at Latest. The reader does
// not get the entries that were appended in between. Right: a reader that
// begins at the end of the snapshot.
func ExampleLog_Reader_incorrect() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	log.Append(ctx, []byte("one"))

	snapshot := log.Since(history.Oldest())
	log.Append(ctx, []byte("two")) // by another goroutine
	wrong := log.Reader(history.Latest())
	right := log.Reader(snapshot.To)
	log.Append(ctx, []byte("three"))

	for _, r := range []*history.Reader{wrong, right} {
		batch, _ := r.TryNext()
		fmt.Printf("%d new, the first is %s\n", len(batch.Entries), batch.Entries[0].Data)
	}
	// Output:
	// 1 new, the first is three
	// 2 new, the first is two
}

// Each build has a log of its own, which ends with the build. Logs that no one
// uses are closed after a while.
func ExampleSet() {
	ctx := context.Background()
	logs, err := history.NewSet(history.SetConfig{MaxLogs: 500})
	if err != nil {
		panic(err)
	}
	defer logs.Close()

	build, release, err := logs.Create(ctx, "build-7") // the runner
	if err != nil {
		panic(err)
	}
	build.Append(ctx, []byte("ok"))
	build.Finish(ctx)
	release()

	build, release, err = logs.Acquire(ctx, "build-7") // a reader makes no log
	if err != nil {
		panic(err)
	}
	defer release()
	for reader := build.Reader(history.Last(100)); ; {
		batch, err := reader.Next(ctx)
		if err != nil {
			fmt.Println(err)
			break
		}
		for _, entry := range batch.Entries {
			fmt.Printf("%s\n", entry.Data)
		}
	}
	_, _, err = logs.Acquire(ctx, "build-8")
	fmt.Println(err)
	// Output:
	// ok
	// history: log is finished
	// history: there is no log of this name
}

// One goroutine follows two logs until both are finished.
func ExampleReader_Changed() {
	ctx := context.Background()
	linux, _ := history.Open(ctx, history.Config{})
	windows, _ := history.Open(ctx, history.Config{})
	linux.Append(ctx, []byte("linux: ok"))
	windows.Append(ctx, []byte("windows: ok"))
	linux.Finish(ctx)
	windows.Finish(ctx)

	a, b := linux.Reader(history.Oldest()), windows.Reader(history.Oldest())
	var aChanged, bChanged <-chan struct{} = a.Changed(), b.Changed()
	for aChanged != nil || bChanged != nil {
		var batch history.Batch
		var err error
		select {
		case <-aChanged:
			if batch, err = a.TryNext(); err != nil { // history.ErrFinished
				aChanged = nil
			} else {
				aChanged = a.Changed()
			}
		case <-bChanged:
			if batch, err = b.TryNext(); err != nil {
				bChanged = nil
			} else {
				bChanged = b.Changed()
			}
		}
		for _, entry := range batch.Entries {
			fmt.Printf("%s\n", entry.Data)
		}
	}
	// Unordered output:
	// linux: ok
	// windows: ok
}
