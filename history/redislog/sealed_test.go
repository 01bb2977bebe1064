package redislog_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/redislog"
	"github.com/relayguard/relayguard/internal/redistest"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, redislog.KeySize) }

func sealed(keys ...[]byte) settings {
	s := quick()
	s.Keys = keys
	return s
}

// The engine's file holds no text, and nothing of what was erased.
func TestDump(t *testing.T) {
	t.Parallel()
	const secret, kept = "the text of an erased entry", "the text of a kept entry"
	for _, test := range []struct {
		why      string
		settings settings
		readable bool // by a reader of the file
	}{
		{"sealed", sealed(key(1)), false},
		{"not sealed", quick(), true},
	} {
		t.Run(test.why, func(t *testing.T) {
			server := redistest.Start(t)
			n := start(t, server.Addr, test.settings)
			// The note is also the text of an entry, and goes with it.
			if _, err := n.log.Replace(ctx0, []byte(secret), []byte(secret), []byte(kept)); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				n.append(fmt.Sprint("entry number ", i))
			}
			if has := bytes.Contains(server.Dump(), []byte(secret)); has != test.readable {
				t.Errorf("before the erasure, the text is in the dump: %v", has)
			}
			if deleted, err := n.log.Delete(ctx0, 1); deleted != 1 || err != nil {
				t.Fatal(deleted, err)
			}
			dump := server.Dump()
			if bytes.Contains(dump, []byte(secret)) {
				t.Error("after the erasure, the dump holds the text")
			}
			if has := bytes.Contains(dump, []byte(kept)); has != test.readable {
				t.Errorf("a kept text is in the dump: %v", has)
			}
			if b := start(t, server.Addr, test.settings).log.Since(history.Last(1)); b.Note != nil {
				t.Errorf("the note has outlived its entry: %q", b.Note)
			}
			wrapped := server.Do("HGET", "{history:room}:head", "dkid")
			if (wrapped != "") == test.readable {
				t.Errorf("the id of the data key is %q", wrapped)
			}
			if _, err := n.log.Clear(ctx0, nil); err != nil {
				t.Fatal(err)
			}
			dump = server.Dump()
			if bytes.Contains(dump, []byte(kept)) || wrapped != "" && bytes.Contains(dump, []byte(wrapped)) {
				t.Error("after a Clear, the dump holds a text or the old data key")
			}
		})
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old := start(t, server.Addr, sealed(key(1)))
	old.append("one")
	for _, test := range []struct {
		why  string
		keys [][]byte
		ok   bool
	}{
		{"another key", [][]byte{key(2)}, false},
		{"no key", nil, false},
		{"a ring with the old key", [][]byte{key(2), key(1)}, true},
	} {
		n := prepare(t, server.Client(), sealed(test.keys...))
		err := n.open(history.Config{})
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.why, err)
		}
		if err != nil && !strings.Contains(err.Error(), "Keys") {
			t.Errorf("%s: the error does not say what to do: %v", test.why, err)
		}
	}
	// A Replace makes a data key, which the first key of the ring encrypts.
	ring := start(t, server.Addr, sealed(key(2), key(1)))
	if _, err := ring.log.Replace(ctx0, []byte("note"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	ring.append("three")
	if got := start(t, server.Addr, sealed(key(2))).texts(); got != "two three" {
		t.Errorf("with the new key alone: %q", got)
	}
	// The node with the old key alone says so, and shows what it had.
	redistest.Wait(t, "the news of the other key", func() bool { return old.engine.Stats().Down })
	if got := old.texts(); got != "one" {
		t.Errorf("the node with the old key shows %q", got)
	}
	if state := old.state(); len(state) != 1 || !strings.Contains(state[0], "Keys") {
		t.Errorf("the node with the old key was told %q", state)
	}
}

// An entry that no node has written stops the readers, which say so.
func TestForeignEntry(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		why      string
		settings settings
		fields   []string
	}{
		{"a text where a sealed one belongs", sealed(key(1)), []string{"t", "1", "n", "3", "d", "abc"}},
		{"other fields", quick(), []string{"text", "abc"}},
		{"a length that is not that of the text", quick(), []string{"t", "1", "n", "5", "d", "abc"}},
		{"a time that is none", quick(), []string{"t", "x", "n", "3", "d", "abc"}},
	} {
		t.Run(test.why, func(t *testing.T) {
			server := redistest.Start(t)
			n := start(t, server.Addr, test.settings)
			v := watch(n, history.Oldest())
			n.append("one")
			v.saw("one", 0, 0)
			server.Do(append([]string{"XADD", "{history:room}:log", "1-2048"}, test.fields...)...)
			redistest.Wait(t, "the news of the entry", func() bool { return n.engine.Stats().Down })
			v.saw("one", 0, 0)
			if err := prepare(t, server.Client(), test.settings).open(history.Config{}); err == nil {
				t.Error("a node has opened the log")
			}
			n.clear("note") // helps, whatever the stream holds
			redistest.Wait(t, "the log without the entry", func() bool { return !n.engine.Stats().Down })
			n.append("two")
			v.saw("two", 1, 0)
		})
	}
}

// A sealed text cannot be put in another place.
func TestSealedTextsAreBound(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := start(t, server.Addr, sealed(key(1)))
	other := sealed(key(1))
	other.Prefix = "other"
	start(t, server.Addr, other).append("of the other log")
	n.append("one")
	for _, field := range []string{"dk", "dkid"} {
		server.Do("HSET", "{other:room}:head", field, server.Do("HGET", "{history:room}:head", field))
	}
	if err := prepare(t, server.Client(), other).open(history.Config{}); err == nil {
		t.Error("the data key of another log was accepted")
	}
	if s := base64.StdEncoding.EncodeToString(key(1)); strings.Contains(fmt.Sprint(n.state()), s) {
		t.Error("a key was logged")
	}
}

// An empty note differs from none.
func TestEmptyNote(t *testing.T) {
	t.Parallel()
	for _, s := range []settings{quick(), sealed(key(1))} {
		server := redistest.Start(t)
		n := start(t, server.Addr, s)
		first := n.append("one")
		if _, err := n.log.Clear(ctx0, []byte{}); err != nil {
			t.Fatal(err)
		}
		if b := start(t, server.Addr, s).log.Since(first); b.Note == nil || len(b.Note) != 0 {
			t.Errorf("an empty note became %v", b.Note)
		}
		n.clear("")
		n.append("")
		if b := start(t, server.Addr, s).log.Since(history.Oldest()); len(b.Entries) != 1 || len(b.Entries[0].Data) != 0 {
			t.Errorf("an empty entry became %v", b.Entries)
		}
	}
}
