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

// From one log to another, encrypted on the way.
func Example() {
	ctx := context.Background()
	from, _ := history.Open(ctx, history.Config{})
	from.Append(ctx, []byte("hello"))
	mine, _ := age.GenerateX25519Identity() // or age-keygen -o key.txt

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

// What a Reader returns before io.EOF may be the beginning of something cut or
// changed. Who uses it at once cannot take it back; ImportLog does not begin.
func ExampleReader_incorrect() {
	ctx := context.Background()
	var file bytes.Buffer
	entries := []history.Entry{{Seq: 1, Data: []byte("one")}, {Seq: 2, Data: []byte("two")}}
	archive.Export(ctx, &file, slices.Values(entries), archive.ExportConfig{})
	cut := file.Bytes()[:file.Len()-110] // the second entry is not all there

	wrong, _ := history.Open(ctx, history.Config{})
	r, _ := archive.NewReader(bytes.NewReader(cut), 0)
	for {
		e, err := r.Next()
		if err != nil {
			break
		}
		wrong.Append(ctx, e.Data)
	}
	fmt.Println("reader:", wrong.Stats().Entries, "of 2 entries, and nobody knows")

	right, _ := history.Open(ctx, history.Config{})
	_, err := archive.ImportLog(ctx, right, nil, bytes.NewReader(cut), archive.ImportConfig{})
	fmt.Println("import:", right.Stats().Entries, "entries;", err)
	// Output:
	// reader: 1 of 2 entries, and nobody knows
	// import: 0 entries; archive: the archive ends too early (line 3)
}
