package history_test

import (
	"context"
	"fmt"
	"time"

	"github.com/relayguard/relayguard/history"
)

// One reader per connection serves the past and what comes, without a queue.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	log, err := history.Open(ctx, history.Config{}) // 1,000 kept, trimmed when 1,200 is passed
	if err != nil {
		panic(err)
	}
	defer log.Close()
	log.Append(ctx, []byte("hello"))

	viewer := log.Reader(history.Oldest())
	for range 2 {
		batch, err := viewer.Next(ctx) // all that is new, at once; waits only where nothing is
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

// A client that lost its connection shows its last position and gets what it
// missed, or a Reset where that is no longer known.
func ExampleParsePosition() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	first, _ := log.Append(ctx, []byte("one"))
	token := first.String() // sent with the message
	log.Append(ctx, []byte("two"))

	pos, err := history.ParsePosition(token) // came back from the client
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

// Erasure begins a new epoch, so that those who have read the entry replace
// what they show.
func ExampleLog_Delete() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	log.Append(ctx, []byte("public"))
	pos, _ := log.Append(ctx, []byte("my address"))
	viewer := log.Reader(log.Position())

	n, _ := log.Delete(ctx, pos.Seq())
	batch := viewer.TryNext()
	fmt.Printf("%d deleted; reset %v, %d left: %s\n", n, batch.Reset, len(batch.Entries), batch.Entries[0].Data)
	// Output:
	// 1 deleted; reset true, 1 left: public
}

// Two steps, first the past and then a subscription to what comes, lose what
// is appended in between. Go on from where the snapshot ended instead.
func ExampleLog_Reader_incorrect() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	log.Append(ctx, []byte("one"))

	snapshot := log.Since(history.Oldest())
	log.Append(ctx, []byte("two")) // another goroutine, just now
	wrong := log.Reader(history.Latest())
	right := log.Reader(snapshot.To)
	log.Append(ctx, []byte("three"))

	for _, r := range []*history.Reader{wrong, right} {
		entries := r.TryNext().Entries
		fmt.Printf("%d new, the first is %s\n", len(entries), entries[0].Data)
	}
	// Output:
	// 1 new, the first is three
	// 2 new, the first is two
}
