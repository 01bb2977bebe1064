package wsframe_test

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/relayguard/relayguard/wsauth/internal/wsframe"
)

// Each encoding of the length (RFC 6455, section 5.2), at both sides of each
// limit.
func TestLengths(t *testing.T) {
	for n, head := range map[int]string{
		0: "\x82\x00", 125: "\x82\x7d", 126: "\x82\x7e\x00\x7e", 65535: "\x82\x7e\xff\xff",
		65536: "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
	} {
		payload := strings.Repeat("x", n)
		if got := wsframe.New(wsframe.Binary, []byte(payload)); string(got) != head+payload {
			t.Errorf("%d bytes: header %q", n, got[:len(got)-n])
		}
	}
}

func TestClose(t *testing.T) {
	for _, row := range []struct {
		code         int
		reason, want string
	}{
		{1000, "bye", "\x88\x05\x03\xe8bye"},
		{4999, "", "\x88\x02\x13\x87"},
		{1005, "no status", "\x88\x00"}, // must not be sent
		{1015, "TLS", "\x88\x00"},
		{0, "none", "\x88\x00"},
		{1000, "\xff", "\x88\x05\x03\xe8\uFFFD"},
		{1000, strings.Repeat("x", 124), "\x88\x7d\x03\xe8" + strings.Repeat("x", 123)},
		{1000, strings.Repeat("é", 70), "\x88\x7c\x03\xe8" + strings.Repeat("é", 61)},
	} {
		if got := string(wsframe.NewClose(row.code, row.reason)); got != row.want {
			t.Errorf("%d %q: %q, want %q", row.code, row.reason, got, row.want)
		}
	}
}

// client encodes a frame of a client, masked with zeros.
func client(head byte, payload string) []byte {
	f := wsframe.New(head, []byte(payload))
	f[1] |= 0x80
	at := len(f) - len(payload)
	return append(append(f[:at:at], 0, 0, 0, 0), payload...)
}

// Goroutines get a Lock one after the other, in the order of their calls, and
// time passes while they wait.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l wsframe.Lock
		if !l.TryLock() || l.TryLock() {
			t.Fatal("free while it is held, or held while it is free")
		}
		start := time.Now()
		var order []int // guarded by l
		for i := range 10 {
			go func() {
				l.Lock()
				defer l.Unlock()
				time.Sleep(time.Hour)
				order = append(order, i)
			}()
			synctest.Wait()
		}
		l.Unlock()
		if l.TryLock() {
			t.Error("taken before those who wait")
		}
		l.Lock()
		defer l.Unlock()
		for i, got := range order {
			if got != i {
				t.Errorf("order %v", order)
				break
			}
		}
		if passed := time.Since(start); len(order) != 10 || passed != 10*time.Hour {
			t.Errorf("%d goroutines in %v", len(order), passed)
		}
	})
}

// Under contention, one goroutine at a time has the Lock, and none is lost.
func TestLockContention(t *testing.T) {
	var l wsframe.Lock
	var wg sync.WaitGroup
	n := 0
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				l.Lock()
				n++
				l.Unlock()
				if l.TryLock() {
					n++
					l.Unlock()
					continue
				}
				l.Lock()
				n++
				l.Unlock()
			}
		})
	}
	wg.Wait()
	if n != 8*2000*2 {
		t.Error(n)
	}
}

// A close frame is found behind others, when its last byte has arrived, and not
// inside of others.
func TestClosed(t *testing.T) {
	inside := client(wsframe.Text, string(client(wsframe.Close, "")))
	wire := append(inside, client(wsframe.Close, "\x03\xe8bye")...)
	var m wsframe.Meter
	var asked atomic.Bool
	for i := range wire {
		if m.Closed() {
			t.Fatalf("closed before byte %d of %d", i, len(wire))
		}
		if !m.Scan(wire[i:i+1], &asked) {
			t.Fatal("a flood")
		}
	}
	if !m.Closed() {
		t.Error("not closed")
	}
	if !m.Scan(bytes.Repeat(client(wsframe.Ping, ""), 200), &asked) || !m.Closed() {
		t.Error("what follows a close frame was read")
	}
}

// The sum does not depend on how the bytes are cut, whatever they are.
func FuzzScan(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(bytes.Repeat(client(wsframe.Ping, "x"), 101), uint8(3))
	f.Add(append(client(wsframe.Text, strings.Repeat("x", 70000)), client(wsframe.Close, "\x03\xe8")...), uint8(200))
	f.Add([]byte("\x88\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"), uint8(0))
	f.Fuzz(func(t *testing.T, wire []byte, chunk uint8) {
		synctest.Test(t, func(t *testing.T) { // in which no time passes
			var whole, cut wsframe.Meter
			var asked atomic.Bool
			want, got := whole.Scan(wire, &asked), true
			for rest := wire; len(rest) > 0; {
				n := min(len(rest), int(chunk)+1)
				got = cut.Scan(rest[:n], &asked) && got
				rest = rest[n:]
			}
			if got != want || cut.Closed() != whole.Closed() {
				t.Errorf("within the budget: %t, %t at once; closed: %t, %t at once", got, want, cut.Closed(), whole.Closed())
			}
		})
	})
}

// A close frame is always whole: at most 125 bytes of valid UTF-8.
func FuzzClose(f *testing.F) {
	f.Add(1000, "bye")
	f.Add(4401, strings.Repeat("é", 70))
	f.Add(1006, "\xff\xfe")
	f.Fuzz(func(t *testing.T, code int, reason string) {
		frame := wsframe.NewClose(code, reason)
		if len(frame) != 2+int(frame[1]) || frame[1] > 125 || frame[1] == 1 || len(frame) > 4 && !utf8.Valid(frame[4:]) {
			t.Errorf("%q", frame)
		}
	})
}
