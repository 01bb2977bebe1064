package redislog_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/internal/redistest"
)

// pinsOf pins the value of a text that is KEY=VALUE.
func pinsOf(data []byte) []history.Pin {
	key, value, ok := bytes.Cut(data, []byte("="))
	switch {
	case !ok:
		return nil
	case len(value) == 0:
		value = nil
	}
	return []history.Pin{{Key: string(key), Data: value}}
}

// values returns what a reader of everything knows of the keys.
func (n *node) values() string {
	all := map[string]string{}
	b := n.log.Since(history.Oldest())
	pins := b.Pins()
	for _, e := range b.Entries {
		pins = append(pins, pinsOf(e.Data)...)
	}
	for _, p := range pins {
		all[p.Key] = string(p.Data)
		if p.Data == nil {
			delete(all, p.Key)
		}
	}
	list := []string{}
	for k, v := range all {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (n *node) knows(want string) {
	n.t.Helper()
	redistest.Wait(n.t, fmt.Sprintf("a node that knows %q", want), func() bool { return n.values() == want })
}

func pinning(s settings) settings {
	s.log = history.Config{Keep: 3, TrimAt: 5, Pins: pinsOf}
	return s
}

// Every node has the pins that a model has, also one that joins.
func TestPinsOfNodes(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, e redistest.Engine) {
		server := e.Start(t)
		rnd := rand.New(rand.NewPCG(3, 4))
		nodes := []*node{start(t, server.Addr, pinning(sealed(key(1)))), start(t, server.Addr, pinning(sealed(key(1))))}
		want := map[string]string{}
		for step := range 300 {
			n := nodes[rnd.IntN(len(nodes))]
			k, v := fmt.Sprintf("%c", 'a'+rune(rnd.IntN(6))), fmt.Sprint(step)
			switch rnd.IntN(30) {
			case 0:
				if _, err := n.log.Replace(ctx0, []byte(k+"="+v), []byte("x")); err != nil {
					t.Fatal(err)
				}
				want = map[string]string{k: v}
			case 1:
				nodes[1] = start(t, server.Addr, pinning(sealed(key(1))))
			case 2:
				n.append(k + "=")
				delete(want, k)
			case 3, 4, 5, 6, 7, 8:
				n.append(k + "=" + v)
				want[k] = v
			default:
				n.append("plain")
			}
			if step%20 == 19 {
				list := []string{}
				for k, v := range want {
					list = append(list, k+"="+v)
				}
				slices.Sort(list)
				for _, n := range nodes {
					n.knows(strings.Join(list, " "))
				}
			}
		}
	})
}

// Appends that travel together pin what each of them would pin alone.
func TestPinsTogether(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := start(t, server.Addr, pinning(quick()))
	errs := make(chan error, 100)
	for i := range cap(errs) {
		go func() {
			_, err := n.log.Append(context.Background(), fmt.Appendf(nil, "k%d=%d", i%10, i))
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	other := start(t, server.Addr, pinning(quick()))
	if got := other.values(); got != n.values() || strings.Count(got, "=") != 10 {
		t.Errorf("the nodes know %q and %q", n.values(), got)
	}
}

// What was erased is neither in the engine nor on a node.
func TestErasedPins(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := start(t, server.Addr, pinning(quick())), start(t, server.Addr, pinning(quick()))
	a.append("secret=the text of a pin", "other=1", "1", "2", "3", "4", "5")
	b.knows("other=1 secret=the text of a pin")
	if !bytes.Contains(server.Dump(), []byte("the text of a pin")) {
		t.Fatal("the engine does not hold the pin")
	}
	if n, err := b.log.Delete(ctx0, 1, 77); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	a.knows("other=1")
	b.knows("other=1")
	if bytes.Contains(server.Dump(), []byte("the text of a pin")) {
		t.Error("the engine still holds the pin")
	}
	if n, err := a.log.Delete(ctx0, 1); n != 0 || err != nil {
		t.Error("a second time:", n, err)
	}
	if _, err := a.log.Clear(ctx0, nil); err != nil {
		t.Fatal(err)
	}
	b.knows("")
	if got := server.Do("EXISTS", "{history:room}:pins"); got != "0" {
		t.Error("after a Clear, the engine has pins:", got)
	}
}
