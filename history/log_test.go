package history_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/relayguard/relayguard/history"
)

func TestSmoke(t *testing.T) {
	l, _ := history.Open(context.Background(), history.Config{})
	r := l.Reader(history.Oldest)
	for i := range 1201 {
		l.Append(context.Background(), fmt.Append(nil, i))
	}
	b, err := r.Next(context.Background())
	fmt.Println(len(b.Entries), b.Missed, err, r.Position(), l.Stats())
	go l.Append(context.Background(), []byte("x"))
	b, err = r.Next(context.Background())
	fmt.Println(len(b.Entries), b.Missed, err)
}
