package wsconn_test

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/wsconn"
)

func TestSubprotocols(t *testing.T) {
	for _, row := range []struct {
		why     string
		ours    []string
		offered []string // lines of the header
		want    string
	}{
		{"none on either side", nil, nil, ""},
		{"none of ours", nil, []string{"chat"}, ""},
		{"none offered", []string{"chat"}, nil, ""},
		{"another", []string{"chat"}, []string{"superchat"}, ""},
		{"the one", []string{"chat"}, []string{"chat"}, "chat"},
		{"our preference", []string{"v2", "v1"}, []string{"v1, v2"}, "v2"},
		{"the older one", []string{"v2", "v1"}, []string{"v0,v1"}, "v1"},
		{"on two lines", []string{"v2", "v1"}, []string{"v0", "v3,\tv2 "}, "v2"},
		{"letters in another case are another one", []string{"chat"}, []string{"CHAT"}, ""},
		{"both cases", []string{"chat"}, []string{"CHAT, chat"}, "chat"},
		{"a part of one", []string{"chat"}, []string{"chat2, mychat"}, ""},
		{"a token beside it is not sent back", []string{"bearer"}, []string{"bearer, secret"}, "bearer"},
	} {
		up, err := wsconn.New(wsconn.Config{Subprotocols: row.ours})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		defer theirs.Close()
		r, w := upgradeRequest(), httptest.NewRecorder()
		r.Header["Sec-Websocket-Protocol"] = row.offered
		if row.ours != nil {
			w.Header().Set("Sec-WebSocket-Protocol", "of a middleware")
		}
		conn, err := up.Accept(pipeWriter{w, ours}, r)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		if row.want != "" {
			want = []string{row.want}
		}
		if got := w.Header()["Sec-Websocket-Protocol"]; !slices.Equal(got, want) || conn.Subprotocol() != row.want {
			t.Errorf("%s: sent %q, negotiated %q, want %q", row.why, got, conn.Subprotocol(), row.want)
		}
		conn.Abort()
	}
	_, err := wsconn.New(wsconn.Config{Subprotocols: []string{"ok", "", "a b", "a,b", "\u212a", "ok", "Ok"}})
	var got []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		got = append(got, e.Error())
	}
	want := []string{
		"wsconn: Config.Subprotocols[1] is malformed", "wsconn: Config.Subprotocols[2] is malformed",
		"wsconn: Config.Subprotocols[3] is malformed", "wsconn: Config.Subprotocols[4] is malformed",
		"wsconn: Config.Subprotocols[5] is a duplicate",
	}
	if !slices.Equal(got, want) || !errors.Is(err, wsauth.ConfigDuplicate) {
		t.Errorf("%q", got)
	}
}

// A close frame whose reason is not UTF-8 is a violation like a message that is
// not, and never sent back.
func TestCloseReasonOfPeer(t *testing.T) {
	for _, row := range []struct {
		reason string
		want   int
	}{
		{"", 1000},
		{"bye", 1000},
		{"auf Wiederhören", 1000},
		{"\xff", 1007},
		{"cut in a character: \xe2\x82", 1007},
		{"a surrogate: \xed\xa0\x80", 1007},
		{"too long a form: \xc0\xaf", 1007},
	} {
		leakCheck(t)
		got := make(chan error, 1)
		s := serve(t, orderly, func(c *wsconn.Conn) {
			_, err := c.Read(context.Background())
			got <- err
			c.Close(1000, "")
		})
		c := s.dial(t)
		c.send(t, opClose, closing(1000, row.reason))
		c.wantClose(t, row.want, "")
		err := <-got
		if _, closed := errors.AsType[*wsconn.CloseError](err); closed != (row.want == 1000) || !closed && !errors.Is(err, wsconn.ErrProtocol) {
			t.Errorf("%q: reader got %v", row.reason, err)
		}
	}
}
