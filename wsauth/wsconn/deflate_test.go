package wsconn_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

const offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

func always(*http.Request) bool { return true }

// squeeze compresses a message as a client does (RFC 7692, section 7.2.1).
func squeeze(text string) string {
	var b strings.Builder
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	io.WriteString(w, text)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// inflate is the reverse of squeeze (section 7.2.2).
func inflate(payload string) (string, error) {
	text, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	return string(text), err
}

// messages looks like a piece of the relay's history.
func messages(n int) []byte {
	words := strings.Fields("the water rises and the machine remembers less of what it was told before it began to forget")
	var b bytes.Buffer
	b.WriteString(`{"type":"history","messages":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"text":%q,"timestamp":%d}`, words[i*7%len(words)]+" ", 1796000000000+int64(i)*41)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func TestCompressedFrames(t *testing.T) {
	long, short := string(messages(256)), "{}"
	frames := []*wsconn.Frame{
		wsconn.NewCompressedFrame([]byte(long)), wsconn.NewFrame([]byte(long)), wsconn.NewCompressedFrame([]byte(short)),
		wsconn.NewCompressedFrame([]byte(long)),
	}
	handle := func(c *wsconn.Conn) {
		for _, f := range frames {
			if f.Len() < len(short) {
				t.Error("no length")
			}
			if err := c.WriteFrame(f); err != nil {
				t.Error(err)
			}
		}
		c.Close(1000, "")
	}
	compressing, plain := brief, brief
	compressing.Compress = always
	choosy := brief
	choosy.Compress = func(r *http.Request) bool { return r.UserAgent() != "Safari" }
	for _, row := range []struct {
		why, lines string
		cfg        wsconn.Config
		answer     string
	}{
		{"both want it", offer, compressing, agreed},
		{"the client does not offer it", "", compressing, ""},
		{"the client offers what is declined", strings.Replace(offer, "client", "server", 1), compressing, ""},
		{"the server does not want it", offer, plain, ""},
		{"the server does not want it for this client", offer + "User-Agent: Safari\r\n", choosy, ""},
		{"the server wants it for this client", offer + "User-Agent: Firefox\r\n", choosy, agreed},
	} {
		t.Run(row.why, func(t *testing.T) {
			s := serve(t, row.cfg, handle)
			c, head := s.dialWith(t, row.lines)
			if got := head["Sec-Websocket-Extensions"]; strings.Join(got, "|") != row.answer {
				t.Fatalf("the answer is %q", got)
			}
			for i, want := range []string{long, long, short, long} {
				op, payload, err := c.recvAny()
				if err != nil {
					t.Fatal(err)
				}
				compressed := row.answer != "" && (i == 0 || i == 3)
				if op&rsv1 != 0 != compressed {
					t.Errorf("frame %d: opcode %#x", i, op)
				}
				if compressed {
					if len(payload) > len(want)/3 {
						t.Errorf("frame %d: %d of %d bytes", i, len(payload), len(want))
					}
					if payload, err = inflate(payload); err != nil {
						t.Error(err)
					}
				}
				if payload != want {
					t.Errorf("frame %d: %.50q", i, payload)
				}
			}
			c.wantClose(t, 1000, "")
		})
	}
}

// A frame that is started goes the same way, and a rest of it is of the same
// form.
func TestStartCompressedFrame(t *testing.T) {
	cfg := brief
	cfg.Compress = always
	f := wsconn.NewCompressedFrame(messages(256))
	const frames = 3000 // more than the socket takes at once
	s := serve(t, cfg, func(c *wsconn.Conn) {
		out := make(chan error, 1)
		for range frames {
			sent, err := c.StartFrame(f, func(err error) { out <- err })
			if err == nil && !sent {
				err = <-out
			}
			if err != nil {
				t.Error(err)
				break
			}
		}
		c.Close(1000, "")
	})
	c, _ := s.dialWith(t, offer)
	want := string(messages(256))
	for i := range frames {
		op, payload, err := c.recvAny()
		if err != nil || op != opText|rsv1 {
			t.Fatalf("frame %d: %#x, %v", i, op, err)
		}
		if i%500 == 0 {
			if got, err := inflate(payload); got != want {
				t.Fatalf("frame %d: %.20q, %v", i, got, err)
			}
		}
	}
	c.wantClose(t, 1000, "")
}

// raw encodes a frame whose first byte is head.
func raw(head byte, payload string) []byte {
	f := frame(opText, payload)
	f[0] = head
	return f
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// What a client sends after compression was negotiated, and how the first Read
// that fails ends. The limit is 4 KiB.
func TestReadCompressed(t *testing.T) {
	const fin = 0x80
	text := func(s string) []byte { return raw(fin|rsv1|opText, s) }
	half := strings.Repeat("half of it, ", 100)
	whole := squeeze(half + half)
	incompressible := func(n int) string {
		b, x := make([]byte, n), uint32(1)
		for i := range b {
			x = x*1664525 + 1013904223
			b[i] = byte(x>>24)&0x3f + '0' // 6 of 8 bits
		}
		return string(b)
	}
	const (
		emptyBlock = "\x00\x00\x00\xff\xff"
		lastBlock  = "\x01\x05\x00\xfa\xffHello" // BFINAL, section 7.2.3.4
	)
	var mixed [][]byte
	var want []string
	for i := range 100 { // many in one packet, read ahead by the library
		s := fmt.Sprint(i)
		want = append(want, s)
		if i%3 == 0 {
			mixed = append(mixed, text(squeeze(s)))
		} else {
			mixed = append(mixed, frame(opText, s))
		}
	}
	for _, row := range []struct {
		why  string
		wire []byte
		want []string
		err  error
		code int // of the close frame that the server then sends
	}{
		{"a message", text(squeeze("hello")), []string{"hello"}, nil, 0},
		{"the example of section 7.2.3.1", text("\xf2\x48\xcd\xc9\xc9\x07\x00"), []string{"Hello"}, nil, 0},
		{"a block that is not compressed (7.2.3.3)", text("\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), []string{"Hello"}, nil, 0},
		{"a last block (7.2.3.4)", text("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), []string{"Hello"}, nil, 0},
		{"two blocks (7.2.3.5)", text("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), []string{"Hello"}, nil, 0},
		{"an empty message (7.2.3.6)", text("\x00"), []string{""}, nil, 0},
		{"no payload at all: an empty message has a byte (7.2.3.6)", text(""), nil, wsconn.ErrProtocol, 1002},
		{"many, mixed with plain ones, at once", join(mixed...), want, nil, 0},
		{"fragments, with a ping between", join(raw(rsv1|opText, whole[:5]), frame(opPing, "x"), raw(0, ""), raw(fin, whole[5:])), []string{half + half}, nil, 0},
		{"fragments, then a plain message", join(raw(rsv1|opText, whole[:1]), raw(fin, whole[1:]), frame(opText, "plain")), []string{half + half, "plain"}, nil, 0},
		{"no context is kept: the same message twice", join(text(whole), text(whole)), []string{half + half, half + half}, nil, 0},
		{"as large as the limit", text(squeeze(incompressible(4096))), []string{incompressible(4096)}, nil, 0},
		{"as large as the limit, stored", text("\x00\x00\x10\xff\xef" + incompressible(4096) + "\x00"), []string{incompressible(4096)}, nil, 0},

		{"a byte above the limit", text(squeeze(strings.Repeat("x", 4097))), nil, wsauth.ErrTooBig, 1009},
		{"a bomb", text(squeeze(strings.Repeat("x", 10<<20))), nil, wsauth.ErrTooBig, 1009},
		{"a bomb of fragments", join(raw(rsv1|opText, squeeze(strings.Repeat("x", 1<<20))), raw(fin, "")), nil, wsauth.ErrTooBig, 1009},
		{"more bytes than a compressor makes, which deliver nothing", text(strings.Repeat(emptyBlock, 2000)), nil, wsauth.ErrTooBig, 1009},
		{"the same without an end", raw(rsv1|opText, strings.Repeat(emptyBlock, 2000)), nil, wsauth.ErrTooBig, 1009},
		{"not UTF-8 after decompression", text(squeeze("\xff\xfe")), nil, wsauth.ErrInvalidUTF8, 1007},
		{"binary", raw(fin|rsv1|opBinary, squeeze("x")), nil, wsauth.ErrBinary, 1003},

		{"not compressed at all", text("\xff\xff\xff\xff"), nil, wsconn.ErrProtocol, 1002},
		{"a distance before the beginning", text("\x63\x04\x12\x00"), nil, wsconn.ErrProtocol, 1002},
		{"cut in the middle of a block", text(whole[:len(whole)-6]), nil, wsconn.ErrProtocol, 1002},
		{"RSV1 on a continuation (section 6.1)", join(raw(rsv1|opText, whole[:5]), raw(fin|rsv1, whole[5:])), nil, wsconn.ErrProtocol, 1002},
		{"RSV1 on a ping (section 6.1)", raw(fin|rsv1|opPing, ""), nil, wsconn.ErrProtocol, 1002},
		{"RSV1 on a close frame", raw(fin|rsv1|opClose, "\x03\xe8"), nil, wsconn.ErrProtocol, 1002},
		{"RSV2 too", raw(fin|rsv1|0x20|opText, squeeze("x")), nil, wsconn.ErrProtocol, 1002},
		{"RSV3 alone", raw(fin|0x10|opText, "x"), nil, wsconn.ErrProtocol, 1002},
		{"a good one, then a bad one", join(text(squeeze("good")), text("\xff\xff")), []string{"good"}, wsconn.ErrProtocol, 1002},
	} {
		t.Run(row.why, func(t *testing.T) {
			leakCheck(t)
			cfg := orderly
			cfg.Compress = always
			got := make(chan []string, 1)
			s := serve(t, cfg, func(c *wsconn.Conn) {
				defer c.Abort()
				var texts []string
				defer func() { got <- texts }()
				for range row.want {
					msg, err := c.Read(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					texts = append(texts, string(msg))
				}
				if row.err == nil {
					c.Close(1000, "")
					return
				}
				_, err := c.Read(context.Background())
				if !errors.Is(err, row.err) {
					t.Errorf("Read returns %v", err)
				}
				for code, e := range map[int]error{1003: wsauth.ErrBinary, 1007: wsauth.ErrInvalidUTF8, 1009: wsauth.ErrTooBig} {
					if errors.Is(err, e) {
						c.Close(code, "")
					}
				}
			})
			c, _ := s.dialWith(t, offer)
			go c.Write(row.wire)
			code := row.code
			if row.err == nil {
				code = 1000
			}
			c.wantClose(t, code, "")
			if texts := <-got; !slices.Equal(texts, row.want) {
				t.Errorf("Read returned %.200q", texts)
			}
		})
	}
}

// Without an agreement, a compressed message violates the protocol (RFC 6455,
// section 5.2).
func TestCompressedUnasked(t *testing.T) {
	for why, lines := range map[string]string{"not offered": "", "declined": strings.Replace(offer, "client", "server", 1)} {
		t.Run(why, func(t *testing.T) {
			cfg := orderly
			cfg.Compress = always
			s := serve(t, cfg, func(c *wsconn.Conn) {
				defer c.Abort()
				if _, err := c.Read(context.Background()); !errors.Is(err, wsconn.ErrProtocol) {
					t.Error(err)
				}
			})
			c, _ := s.dialWith(t, lines)
			c.Write(raw(0x80|rsv1|opText, squeeze("hello")))
			c.wantClose(t, 1002, "")
		})
	}
}

// Binary messages are decompressed too, if the caller reads them.
func TestReadCompressedBinary(t *testing.T) {
	cfg := brief
	cfg.Compress = always
	s := serve(t, cfg, func(c *wsconn.Conn) {
		if data, binary, err := c.ReadMessage(context.Background()); string(data) != "\xff\x00" || !binary || err != nil {
			t.Errorf("%q, %t, %v", data, binary, err)
		}
		c.Close(1000, "")
	})
	c, _ := s.dialWith(t, offer)
	c.Write(raw(0x80|rsv1|opBinary, squeeze("\xff\x00")))
	c.wantClose(t, 1000, "")
}

// Compressed messages that arrive after the close frame of the server are
// discarded like others, and the answer of the client still counts.
func TestCompressedAfterClose(t *testing.T) {
	cfg := orderly
	cfg.Compress = always
	cfg.CloseGrace = patience
	closed := make(chan error, 1)
	s := serve(t, cfg, func(c *wsconn.Conn) { closed <- c.Close(1000, "") })
	c, _ := s.dialWith(t, offer)
	if op, _, err := c.recv(); op != opClose || err != nil {
		t.Fatal(op, err)
	}
	for range 200 {
		c.Write(raw(0x80|rsv1|opText, squeeze("too late")))
	}
	c.Write(frame(opClose, closing(1000, "")))
	within(t, "Close", func() {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A frame is compressed once for all connections, and only if one needs it.
func TestCompressedOnce(t *testing.T) {
	conn := sinkConn(t)
	f := wsconn.NewCompressedFrame(messages(256))
	if n := testing.AllocsPerRun(100, func() { _ = conn.WriteFrame(f) }); n != 0 {
		t.Errorf("%v allocations for a connection without compression", n)
	}
	conn = sinkConn(t, "permessage-deflate")
	_ = conn.WriteFrame(f)
	if n := testing.AllocsPerRun(100, func() { _ = conn.WriteFrame(f) }); n != 0 {
		t.Errorf("%v allocations for a connection with compression", n)
	}
}

// said is a connection whose client has sent something and then left.
type said struct {
	sink
	r *bytes.Reader
}

func (s said) Read(p []byte) (int, error)    { return s.r.Read(p) }
func (said) SetReadDeadline(time.Time) error { return nil }

// Whatever a client sends as compressed, Read ends, and returns no more than
// the limit.
func FuzzReadCompressed(f *testing.F) {
	for _, seed := range []string{"", "\x00", squeeze("hello"), squeeze(strings.Repeat("x", 1<<20)), "\x01\x05\x00\xfa\xffHello", "\xff\xff"} {
		f.Add(seed)
	}
	up, err := wsconn.New(wsconn.Config{Compress: always})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		r := upgradeRequest()
		r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate")
		ours, theirs := net.Pipe()
		defer theirs.Close()
		client := said{sink{ours}, bytes.NewReader(raw(0x80|rsv1|opText, payload))}
		conn, err := up.Accept(pipeWriter{httptest.NewRecorder(), client}, r)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Abort()
		conn.SetReadLimit(1000)
		msg, err := conn.Read(context.Background())
		if len(msg) > 1000 {
			t.Errorf("%d bytes", len(msg))
		}
		want, wantErr := inflate(payload)
		if err == nil && string(msg) != want {
			t.Errorf("%q, want %q", msg, want)
		}
		if wantErr == nil && len(want) <= 1000 && len(payload) <= 1000 && json.Valid([]byte(want)) && err != nil {
			t.Error(err)
		}
	})
}

// The sizes and times of a piece of history at each level of compression.
func BenchmarkCompress(b *testing.B) {
	for _, n := range []int{4, 16, 256, 1000} {
		text := messages(n)
		for level := 1; level <= 9; level += 2 {
			b.Run(fmt.Sprintf("%d messages/level %d", n, level), func(b *testing.B) {
				var out bytes.Buffer
				w, err := flate.NewWriter(&out, level)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					out.Reset()
					w.Reset(&out)
					w.Write(text)
					w.Flush()
				}
				b.ReportMetric(float64(len(text))/float64(out.Len()), "times-smaller")
			})
		}
	}
}
