package redislimit

import (
	"context"
	"runtime"
	"sync"

	"github.com/redis/rueidis"
)

// together sends the commands of many goroutines in one write, since a write
// takes longer than a decision. The first goroutine sends for all that are
// about to ask, and waits for none. The zero value is ready.
type together struct {
	mu   sync.Mutex
	next *batch // that others may join; nil: the next goroutine begins one
}

// batch are commands that are sent in one write.
type batch struct {
	commands rueidis.Commands
	replies  []rueidis.RedisResult
	done     chan struct{} // closed when there are replies
}

// mostTogether bounds how long the engine works for one batch.
const mostTogether = 128

// do runs a command. All that travel together end with the context of the
// first, so each must allow the same time.
func (t *together) do(ctx context.Context, client rueidis.Client, command rueidis.Completed) rueidis.RedisResult {
	if client.Mode() == rueidis.ClientModeCluster {
		// A batch would wait for the slowest of several engines.
		return client.Do(ctx, command)
	}
	t.mu.Lock()
	b := t.next
	first := b == nil
	if first {
		b = &batch{done: make(chan struct{})}
		t.next = b
	}
	i := len(b.commands)
	b.commands = append(b.commands, command)
	if len(b.commands) == mostTogether {
		t.next = nil
	}
	t.mu.Unlock()
	if !first {
		<-b.done
		return b.replies[i]
	}
	runtime.Gosched() // those that can run now may join
	t.mu.Lock()
	if t.next == b {
		t.next = nil
	}
	t.mu.Unlock()
	if len(b.commands) == 1 {
		return client.Do(ctx, command)
	}
	b.replies = client.DoMulti(ctx, b.commands...)
	close(b.done)
	return b.replies[0]
}
