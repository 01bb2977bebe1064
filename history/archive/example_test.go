package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"filippo.io/age"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
)

// Export the entries of one log, encrypted, and import them into another.
func Example() {
	ctx := context.Background()
	from, _ := history.Open(ctx, history.Config{})
	from.Append(ctx, []byte("hello"))
	mine, _ := age.GenerateX25519Identity() // or with age-keygen -o key.txt

	var file bytes.Buffer
	_, err := archive.Export(ctx, &file, slices.Values(from.Since(history.Oldest()).Entries),
		archive.ExportConfig{Recipients: []age.Recipient{mine.Recipient()}})
	if err != nil {
		panic(err)
	}

	to, _ := history.Open(ctx, history.Config{})
	done, err := archive.ImportLog(ctx, to, nil, &file, archive.ImportConfig{Identities: []age.Identity{mine}})
	fmt.Println(done.Entries, err)
	fmt.Printf("%s\n", to.Since(history.Oldest()).Entries[0].Data)
	// Output:
	// 1 <nil>
	// hello
}

// Wrong: to append the entries of a Reader before it has returned io.EOF, since
// the archive may be incomplete. Right: ImportLog, which then changes nothing.
func ExampleReader_incorrect() {
	ctx := context.Background()
	var file bytes.Buffer
	entries := []history.Entry{{Seq: 1, Data: []byte("one")}, {Seq: 2, Data: []byte("two")}}
	archive.Export(ctx, &file, slices.Values(entries), archive.ExportConfig{})
	cut := file.Bytes()[:file.Len()-110] // the second entry is incomplete

	wrong, _ := history.Open(ctx, history.Config{})
	r, _ := archive.NewReader(bytes.NewReader(cut), 0)
	for {
		e, err := r.Next()
		if err != nil {
			break
		}
		wrong.Append(ctx, e.Data)
	}
	fmt.Println("reader:", wrong.Stats().Entries, "of 2 entries are in the log")

	right, _ := history.Open(ctx, history.Config{})
	_, err := archive.ImportLog(ctx, right, nil, bytes.NewReader(cut), archive.ImportConfig{})
	fmt.Println("import:", right.Stats().Entries, "entries;", err)
	// Output:
	// reader: 1 of 2 entries are in the log
	// import: 0 entries; archive: the archive ends too early (line 3)
}
