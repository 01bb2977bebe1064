package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait.
const patience = 30 * time.Second

// Wait waits until done returns true. If that takes more than 30 seconds, the
// test fails and names what it waited for. Only the goroutine of the test may
// call it.
func Wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// Do makes the engine run a command, and returns its answer as [Try] does. An
// error ends the test.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	answer, err := Try(s.Addr, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return answer
}

// Try makes the engine at addr run a command, on a connection of its own. The
// elements of an array are lines of the answer. An engine that does not answer
// within five seconds is an error.
func Try(addr string, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	request := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := conn.Write(request); err != nil {
		return "", err
	}
	lines, err := answer(bufio.NewReader(conn))
	return strings.Join(lines, "\n"), err
}

// answer reads one answer of the protocol RESP2.
func answer(r *bufio.Reader) ([]string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, io.ErrUnexpectedEOF
	}
	rest := line[1:]
	switch line[0] {
	case '+', ':':
		return []string{rest}, nil
	case '-':
		return nil, errors.New(rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return nil, fmt.Errorf("unknown answer %q", line)
	}
	var all []string
	switch {
	case n < 0: // no value
	case line[0] == '$':
		data := make([]byte, n+2)
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, err
		}
		all = []string{string(data[:n])}
	case line[0] == '*':
		for range n {
			lines, err := answer(r)
			if err != nil {
				return nil, err
			}
			all = append(all, lines...)
		}
	default:
		return nil, fmt.Errorf("unknown answer %q", line)
	}
	return all, nil
}

// field returns the value of a line "name:value", as INFO has them, or "".
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
