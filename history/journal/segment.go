package journal

import (
	"crypto/cipher"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"

	"github.com/relayguard/relayguard/history"
)

// A segment is a magic text, followed by records. A record is
//
//	length      4 bytes: the number of sealed bytes
//	checksum    4 bytes: CRC-32C of the length
//	sealed      12 bytes nonce, ciphertext, 16 bytes tag
//
// and the additional data of the encryption is the record's number in the
// segment. The checksum distinguishes a record whose end is missing, which an
// interrupted write leaves, from one whose length was changed, which is damage.
const (
	segMagic  = "relayguard journal 1\n"
	frameSize = 8
	overhead  = 12 + 16
	maxRecord = 1 << 30
)

// The first byte of the plaintext is the kind of the record.
const (
	kindNote  = 'n' // the note that began the epoch
	kindEntry = 'e' // floor, seq, seconds, nanoseconds, data
	kindOpen  = 'o' // a power failure may lose later records
	kindClose = 'c' // floor; all earlier records are on disk
	kindLine  = 'l' // the name of a line, and the end of the line before it
	kindEnd   = 'f' // the log is finished
	kindPin   = 'p' // seq, length of the key, key, data; it replaces the pin of the key
	kindUnpin = 'u' // key
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type segment struct {
	gen     uint64
	dataKey []byte
	head    head
	aead    cipher.AEAD
	named   string // the name of f, while it is written
	f       file
	key     file // the key file; nil if it must be opened to be destroyed
	size    int64
	records uint64
	plain   []byte // reused
	out     []byte // reused
}

// frame appends the record that holds plain to b.
func (s *segment) frame(b, plain []byte) []byte {
	length := uint32(len(plain) + overhead)
	b = binary.BigEndian.AppendUint32(b, length)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[len(b)-4:], castagnoli))
	b = s.aead.Seal(b, nil, plain, binary.BigEndian.AppendUint64(nil, s.records))
	s.records++
	return b
}

// entryPlain appends the plaintext of an entry's record to b.
func entryPlain(b []byte, floor uint64, e history.Entry) []byte {
	b = append(b, kindEntry)
	b = binary.BigEndian.AppendUint64(b, floor)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.At.Nanosecond()))
	return append(b, e.Data...)
}

// linePlain appends the plaintext of the record that begins line.
func linePlain(b []byte, line uint64, before history.Head) []byte {
	b = append(b, kindLine)
	for _, v := range []uint64{line, before.Line, before.Epoch, before.Last} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// pinPlain returns the plaintext of a pin's record.
func pinPlain(p history.Pin) []byte {
	b := binary.BigEndian.AppendUint64([]byte{kindPin}, p.Seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.Key)))
	return append(append(b, p.Key...), p.Data...)
}

const entrySize = 1 + 8 + 8 + 8 + 4

// entrySpace returns the number of bytes that an entry takes in the segment.
func entrySpace(e history.Entry) int64 {
	return int64(frameSize + overhead + entrySize + len(e.Data))
}

// pinSpace returns the number of bytes that a pin takes in the segment.
func pinSpace(p history.Pin) int64 {
	return int64(frameSize + overhead + len(pinPlain(p)))
}

// write appends b, which holds this number of complete records, to the file. If
// that fails, write restores the length of the file. If that fails too, broken
// is true.
func (s *segment) write(b []byte, records uint64) (broken bool, err error) {
	if _, err = s.f.WriteAt(b, s.size); err == nil {
		s.size += int64(len(b))
		return false, nil
	}
	s.records -= records
	return s.f.Truncate(s.size) != nil, err
}

// contents is the state that the records of a segment describe.
type contents struct {
	line    uint64         // the last line, or 0 if no record begins one
	earlier []history.Head // the ends of the lines before it
	note    []byte
	pins    []history.Pin
	entries []history.Entry
	floor   uint64
	ended   bool // the log is finished
	lax     bool // it was not closed, and not every append was synced
	records uint64
	end     int64 // the offset after the last complete record
	cut     int64 // the number of bytes after end
}

// read parses data, the content of a segment.
func (s *segment) read(data []byte) (c contents, err error) {
	if len(data) < len(segMagic) {
		if segMagic[:len(data)] != string(data) {
			return c, corrupt("the file is not a segment")
		}
		return contents{cut: int64(len(data))}, nil
	}
	if string(data[:len(segMagic)]) != segMagic {
		return c, corrupt("the file is not a segment")
	}
	rest := data[len(segMagic):]
	for len(rest) >= frameSize && !zero(rest) {
		length := int64(binary.BigEndian.Uint32(rest))
		if crc32.Checksum(rest[:4], castagnoli) != binary.BigEndian.Uint32(rest[4:]) || length < overhead+1 || length > maxRecord {
			return c, corrupt("the length of a record is wrong")
		}
		if int64(len(rest))-frameSize < length {
			break
		}
		sealed := rest[frameSize : frameSize+length]
		plain, err := s.aead.Open(nil, nil, sealed, binary.BigEndian.AppendUint64(nil, c.records))
		if err != nil {
			return c, corrupt("a record fails authentication")
		}
		if err := c.add(plain); err != nil {
			return c, err
		}
		c.records++
		rest = rest[frameSize+length:]
	}
	c.end, c.cut = int64(len(data)-len(rest)), int64(len(rest))
	return c, nil
}

// zero reports whether b holds only zeros. Some file systems leave zeros after
// a crash if the new length of a file was written and the content was not.
func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// add applies a record to c.
func (c *contents) add(plain []byte) error {
	kind, body := plain[0], plain[1:]
	switch {
	case kind == kindNote:
		c.note = body
	case kind == kindLine && len(body) == 32:
		u := func(i int) uint64 { return binary.BigEndian.Uint64(body[8*i:]) }
		c.line = u(0)
		c.earlier = append(c.earlier, history.Head{Line: u(1), Epoch: u(2), Last: u(3)})
	case kind == kindOpen:
		c.lax = true
	case kind == kindClose && len(body) == 8:
		c.lax = false
		c.floor = max(c.floor, binary.BigEndian.Uint64(body))
	case kind == kindPin && len(body) >= 12 && int64(binary.BigEndian.Uint32(body[8:])) <= int64(len(body)-12):
		key := body[12 : 12+binary.BigEndian.Uint32(body[8:])]
		c.unpin(string(key))
		c.pins = append(c.pins, history.Pin{Key: string(key), Seq: binary.BigEndian.Uint64(body), Data: body[12+len(key):]})
	case kind == kindUnpin:
		c.unpin(string(body))
	case kind == kindEnd && len(body) == 0:
		c.ended = true
	case kind == kindEntry && c.ended:
		return corrupt("an entry follows the end of the log")
	case kind == kindEntry && len(plain) >= entrySize:
		c.floor = max(c.floor, binary.BigEndian.Uint64(body))
		at := time.Unix(int64(binary.BigEndian.Uint64(body[16:])), int64(binary.BigEndian.Uint32(body[24:])))
		c.entries = append(c.entries, history.Entry{Seq: binary.BigEndian.Uint64(body[8:]), At: at, Data: body[28:]})
	default:
		return corrupt("a record has an unknown kind")
	}
	return nil
}

func (c *contents) unpin(key string) {
	c.pins = slices.DeleteFunc(c.pins, func(p history.Pin) bool { return p.Key == key })
}
