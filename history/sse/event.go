package sse

import (
	"bytes"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/history"
)

// pieceBytes is how many bytes of entries go into one write, unless a single
// entry is longer.
const pieceBytes = 64 << 10

// eventCost is about the length of an event besides its data.
const eventCost = 40

// piece returns the first part of b, which goes into one write.
func piece(b history.Batch) history.Batch {
	size := 0
	for i, e := range b.Entries {
		if size += len(e.Data) + eventCost; i > 0 && size > pieceBytes {
			return b.First(i)
		}
	}
	return b
}

// appendBatch appends the events of b to buf. An id says that the client has
// everything before it, so reset and missed have one only if nothing follows.
func appendBatch(buf []byte, b history.Batch) []byte {
	id := ""
	if len(b.Entries) == 0 {
		id = b.To.String()
	}
	if b.Reset {
		buf = appendEvent(buf, "reset", id, b.Note)
	}
	if b.Missed > 0 {
		buf = appendEvent(buf, "missed", id, strconv.AppendUint(nil, b.Missed, 10))
	}
	for i, e := range b.Entries {
		buf = appendEvent(buf, "", b.First(i+1).To.String(), e.Data)
	}
	return buf
}

// appendEvent appends an event to buf. A line end in data begins a new data
// field, so data cannot contain a field of another kind.
func appendEvent(buf []byte, name, id string, data []byte) []byte {
	if name != "" {
		buf = append(append(append(buf, "event: "...), name...), '\n')
	}
	if id != "" {
		buf = append(append(append(buf, "id: "...), id...), '\n')
	}
	for more := true; more; {
		line := data
		end := bytes.IndexAny(data, "\r\n")
		if more = end >= 0; more {
			line = data[:end]
			if data[end] == '\r' && end+1 < len(data) && data[end+1] == '\n' {
				end++
			}
			data = data[end+1:]
		}
		buf = append(append(append(buf, "data: "...), line...), '\n')
	}
	return append(buf, '\n')
}

// appendStart appends what begins a stream: the time after which the client
// should connect again, and the id of an event without data, if it is not
// empty. The client remembers that id and shows no event.
func appendStart(buf []byte, retry time.Duration, id string) []byte {
	buf = strconv.AppendInt(append(buf, "retry: "...), retry.Milliseconds(), 10)
	if id != "" {
		buf = append(append(buf, "\nid: "...), id...)
	}
	return append(buf, "\n\n"...)
}
