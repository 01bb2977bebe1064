package operate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"filippo.io/age"

	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
)

// transferWait is how long a transfer of an archive can pause. A whole transfer
// has no time limit, since the archive can be large and the client slow.
const transferWait = 30 * time.Second

// History holds the parts of the server that the calls about the history work
// on.
type History struct {
	Rooms  *rooms.Rooms
	Limits Limits
}

// Limits bound the messages that an import keeps.
type Limits struct {
	Keep     int   // number of messages; the newest are kept
	MaxBytes int64 // their total size; 0 is the archive package's limit
}

// Imported is the result of an import.
type Imported struct {
	Messages uint64 `json:"messages"` // in the archive
	Kept     int    `json:"kept"`     // of them; the others exceed the limits
}

// maxLine is more than the longest line of an archive, in bytes: a message is
// stored in at most three times [relay.MaxMessage] bytes, and each may take two
// in a line.
const maxLine = 1 << 20

// Read reads and checks the whole archive in r, and returns the messages within
// the limits. If the archive is encrypted, identities decrypt it. progress can
// be nil. All messages obey the limits of publishing, and none has a time after
// now.
func (l Limits) Read(ctx context.Context, r io.Reader, progress func(archive.Progress), identities ...age.Identity) ([]history.Entry, archive.Progress, error) {
	entries, done, err := archive.Read(ctx, r, archive.ImportConfig{
		Keep: l.Keep + relay.MaxPinned, MaxBytes: l.MaxBytes, MaxLine: maxLine, Check: relay.Check, Identities: identities, Progress: progress,
	})
	if l.Keep > 0 {
		entries = relay.Newest(entries, l.Keep)
	}
	now := time.Now()
	for i := range entries {
		entries[i] = relay.Dated(entries[i], now)
	}
	return entries, done, err
}

func (c *Config) handleHistory(mux *http.ServeMux) {
	handle := func(pattern string, call func(*rooms.Room, http.ResponseWriter, *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if room := c.History.Rooms.Of(w, r, c.noRoom); room != nil {
				call(room, w, r)
			}
		})
	}
	handle("GET /history/export", func(room *rooms.Room, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		w.Header().Set("Cache-Control", "no-store")
		all := room.Log.Since(history.Oldest())
		entries := relay.Archived(all.Pins(), all.Entries)
		if _, err := archive.Export(r.Context(), Unhurried(w), slices.Values(entries), archive.ExportConfig{}); err != nil {
			panic(http.ErrAbortHandler) // cut the connection, or the archive would look complete
		}
	})
	handle("POST /history/import", func(room *rooms.Room, w http.ResponseWriter, r *http.Request) {
		done, err := c.History.importInto(r.Context(), room, unhurriedReader{r.Body, http.NewResponseController(w)})
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(transferWait))
		var refused *archive.Error
		switch {
		case errors.As(err, &refused) && refused.Reason != archive.ReasonFailed:
			http.Error(w, "Nothing was changed: "+err.Error(), http.StatusBadRequest)
		case errors.Is(err, history.ErrNotErased):
			http.Error(w, "The history was replaced, but not everything is done: "+err.Error(), http.StatusInternalServerError)
		case err != nil:
			http.Error(w, "Nothing was changed: "+err.Error(), http.StatusInternalServerError)
		default:
			answer(w, done)
		}
	})
	handle("DELETE /history", func(room *rooms.Room, w http.ResponseWriter, r *http.Request) {
		found(w, "history", true, room.Relay().Clear(r.Context()))
	})
	handle("DELETE /history/{seq}", func(room *rooms.Room, w http.ResponseWriter, r *http.Request) {
		seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 64)
		if err != nil {
			found(w, "message "+strconv.Quote(r.PathValue("seq"))+": messages are numbered (\"seq\" in an export)", false, nil)
			return
		}
		n, err := room.Relay().Erase(r.Context(), seq)
		found(w, "message "+r.PathValue("seq"), n > 0, err)
	})
}

// noRoom refuses a call that names no room, with the names of all.
func (c *Config) noRoom(w http.ResponseWriter, status int, why string) {
	if c.History.Rooms.Named() {
		why += " (ROOMS: " + c.History.Rooms.Names() + ")"
	}
	http.Error(w, why, status)
}

func (h History) importInto(ctx context.Context, room *rooms.Room, r io.Reader) (Imported, error) {
	entries, done, err := h.Limits.Read(ctx, r, nil)
	if err != nil {
		return Imported{}, err
	}
	if err := room.Relay().Import(ctx, entries); err != nil {
		return Imported{}, err
	}
	return Imported{Messages: done.Entries, Kept: len(entries)}, nil
}

// Unhurried returns a writer of an answer that sets the server's deadline anew,
// to 30 seconds from now, before each piece: a transfer can be large, and its
// client slow.
func Unhurried(w http.ResponseWriter) io.Writer {
	return unhurriedWriter{w, http.NewResponseController(w)}
}

type unhurriedWriter struct {
	io.Writer
	*http.ResponseController
}

func (u unhurriedWriter) Write(b []byte) (int, error) {
	if err := u.SetWriteDeadline(time.Now().Add(transferWait)); err != nil {
		return 0, err
	}
	return u.Writer.Write(b)
}

// unhurriedReader is the same for the body of a request.
type unhurriedReader struct {
	io.Reader
	*http.ResponseController
}

func (u unhurriedReader) Read(b []byte) (int, error) {
	if err := u.SetReadDeadline(time.Now().Add(transferWait)); err != nil {
		return 0, err
	}
	return u.Reader.Read(b)
}

// inRoom returns the path of a call about the room.
func (c *Client) inRoom(path string) string {
	if c.Room != "" {
		path += "?room=" + url.QueryEscape(c.Room)
	}
	return path
}

// Export asks for the history. The sequence ends after its first error. The
// caller must range over it, which closes the connection.
func (c *Client) Export(ctx context.Context) (iter.Seq2[history.Entry, error], error) {
	res, err := c.ask(ctx, http.MethodGet, c.inRoom("/history/export"), nil)
	if err != nil {
		return nil, err
	}
	in, err := archive.NewReader(res.Body, 0)
	if err != nil {
		res.Body.Close()
		return nil, err
	}
	return func(yield func(history.Entry, error) bool) {
		defer res.Body.Close()
		for {
			e, err := in.Next()
			if err == io.EOF || !yield(e, err) || err != nil {
				return
			}
		}
	}, nil
}

// Import replaces the history with entries.
func (c *Client) Import(ctx context.Context, entries []history.Entry) (done Imported, err error) {
	body, w := io.Pipe()
	go func() {
		_, err := archive.Export(ctx, w, slices.Values(entries), archive.ExportConfig{})
		w.CloseWithError(err) // nil ends the body without an error
	}()
	res, err := c.ask(ctx, http.MethodPost, c.inRoom("/history/import"), body)
	body.Close()
	if err != nil {
		return done, err
	}
	defer res.Body.Close()
	if json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&done) != nil {
		return done, errForeign
	}
	return done, nil
}

// Erase erases one message, by its number in an export.
func (c *Client) Erase(ctx context.Context, seq uint64) error {
	return c.do(ctx, http.MethodDelete, c.inRoom("/history/"+strconv.FormatUint(seq, 10)))
}

// EraseAll erases every message.
func (c *Client) EraseAll(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, c.inRoom("/history"))
}
