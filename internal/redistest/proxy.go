package redistest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to an address. It can hold what passes, cut
// the connections, and refuse new ones. Its methods may be called from any
// goroutine. With Hold, what is sent after the call does not pass.
type Proxy struct {
	Addr string // HOST:PORT

	mu       sync.Mutex
	target   string
	refuse   bool
	requests chan struct{} // closed: pass
	answers  chan struct{} // closed: pass
	pairs    map[*pair]bool
	closed   bool
	running  sync.WaitGroup
}

// pair is a forwarded connection.
type pair struct {
	client, server net.Conn
	cut            chan struct{}
	once           sync.Once
}

func (p *pair) close() {
	p.once.Do(func() {
		close(p.cut)
		p.client.Close()
		p.server.Close()
	})
}

// Forward starts a proxy before the engine at target. It ends with the test.
func Forward(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target, requests: open(), answers: open(), pairs: make(map[*pair]bool)}
	p.running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.running.Wait()
	})
	return p
}

func open() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse || p.closed
	p.mu.Unlock()
	if refuse {
		client.Close()
		return
	}
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		client.Close()
		return
	}
	c := &pair{client: client, server: server, cut: make(chan struct{})}
	p.mu.Lock()
	// Refuse or Target may have been called while this dialled.
	if p.refuse || p.closed || p.target != target {
		p.mu.Unlock()
		c.close()
		return
	}
	p.pairs[c] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(c, server, client, &p.requests) })
	both.Go(func() { p.pump(c, client, server, &p.answers) })
	both.Wait()
	c.close()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// pump forwards from one side to the other while the gate is open. The end of a
// connection passes the gate too, like a packet.
func (p *Proxy) pump(c *pair, to, from net.Conn, gate *chan struct{}) {
	data := make([]byte, 64<<10)
	for {
		n, err := from.Read(data)
		p.mu.Lock()
		pass := *gate
		p.mu.Unlock()
		select {
		case <-pass:
		case <-c.cut:
			return
		}
		if n > 0 {
			if _, werr := to.Write(data[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// Hold lets nothing pass in either direction. Connections stay open, and new
// ones are accepted and held.
func (p *Proxy) Hold() {
	p.hold(&p.requests)
	p.hold(&p.answers)
}

// HoldAnswers lets nothing pass from the engine to its client or its replica.
// What they send passes.
func (p *Proxy) HoldAnswers() { p.hold(&p.answers) }

func (p *Proxy) hold(gate *chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-*gate:
		*gate = make(chan struct{})
	default:
	}
}

// Release ends Hold and HoldAnswers. What was held passes now.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, gate := range []chan struct{}{p.requests, p.answers} {
		select {
		case <-gate:
		default:
			close(gate)
		}
	}
}

// Cut closes all connections, and drops what they hold. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

// Refuse makes the proxy close new connections at once. Those that are open
// stay open: call Cut too for an engine that is gone.
func (p *Proxy) Refuse() { p.set(func() { p.refuse = true }) }

// Accept ends Refuse.
func (p *Proxy) Accept() { p.set(func() { p.refuse = false }) }

// Target makes the proxy forward new connections to another address. Those that
// are open stay open: call Cut too for a client to follow.
func (p *Proxy) Target(addr string) { p.set(func() { p.target = addr }) }

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// Conns returns the number of connections that are open.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}
