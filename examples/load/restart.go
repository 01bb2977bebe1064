//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/relayguard/relayguard/examples/internal/client"
)

// goingAway is the close code of a server that stops (RFC 6455, section 7.4.1).
const goingAway = 1001

// longestAway bounds how long a viewer stays away, whatever the server says.
const longestAway = 5 * time.Minute

// restart tells the server to end. Each viewer comes back at the time that the
// close frame names, and then tries until the server is there again.
func (l *load) restart(ctx context.Context) error {
	if err := l.connect(ctx, l.cfg.viewers, l.cfg.ramp, 0); err != nil {
		return err
	}
	before := l.viewers
	l.viewers = make([]*viewer, len(before))
	l.setPhase("restarting")
	pid := l.cfg.serverPIDs[0]
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("-server-pid %d: %w", pid, err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, longestAway+l.cfg.wait)
	defer cancel()
	l.connected.Store(0)
	var took histogram
	in := map[int]int{} // viewers by the second in which they came back
	var returning sync.WaitGroup
	for i, old := range before {
		v := newViewer(reads, l.finder, i, true)
		l.viewers[i] = v
		l.put(v, 0)
		if old.conn == nil {
			continue // it counts as refused
		}
		returning.Go(func() {
			at, err := l.comeBack(ctx, old, v)
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.refused[refusedAs(err)]++
				return
			}
			took.add(at.Sub(start))
			in[int(at.Sub(start)/time.Second)]++
			if !old.told {
				l.report.Untold++
			}
		})
	}
	returning.Wait()
	l.report.Seconds = time.Since(start).Seconds()
	for _, n := range in {
		l.report.PeakReturns = max(l.report.PeakReturns, n)
	}
	l.report.Complete = quantilesOf(&took)
	return nil
}

// comeBack waits until old has ended, and connects v in its place. It returns
// when that was.
func (l *load) comeBack(ctx context.Context, old, v *viewer) (at time.Time, err error) {
	select {
	case <-old.ended:
	case <-ctx.Done():
		return at, fmt.Errorf("not disconnected by SIGTERM")
	}
	old.conn.Close()
	wait, told := old.away()
	if old.told = told; !told {
		wait = backOff(0)
	}
	due := time.Now().Add(wait)
	for failures := 0; ; failures++ {
		if err := pause(ctx, wait); err != nil {
			return at, err
		}
		conn, err := l.dial(ctx, v, l.to[0])
		if err == nil {
			l.connected.Add(1)
			v.start(conn)
			return time.Now(), nil
		}
		if time.Since(due) > l.cfg.wait {
			return at, err
		}
		wait = backOff(failures)
	}
}

// away returns how long the server's close frame asks v to stay away, and up to
// a second more, because other viewers have the same number. told is false if
// it does not ask.
func (v *viewer) away() (wait time.Duration, told bool) {
	wait, told = client.ComeBack(v.reason, longestAway)
	return wait + rand.N(time.Second), told && v.code == goingAway
}
