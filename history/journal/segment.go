package journal

import (
	"crypto/cipher"
	"encoding/binary"
	"hash/crc32"
	"os"
	"time"

	"github.com/relayguard/relayguard/history"
)

// A segment is a magic text and records. A record is
//
//	length      4 bytes, of what is sealed
//	checksum    4 bytes, of the length
//	sealed      12 bytes nonce, ciphertext, 16 bytes tag
//
// with its number in the segment as additional data. The checksum is there to
// tell a record whose end is missing from one whose length was changed: the
// first is what an interrupted write leaves, the second an attack or a fault.
const (
	segMagic  = "relayguard journal 1\n"
	frameSize = 8
	overhead  = 12 + 16
	maxRecord = 1 << 30
)

// Kinds of records: the first byte of the plaintext.
const (
	kindNote  = 'n' // the note that began the epoch
	kindEntry = 'e' // floor, seq, seconds, nanoseconds, data
	kindOpen  = 'o' // what follows may be lost with the power
	kindClose = 'c' // floor; all before is on disk
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type segment struct {
	gen     uint64
	dataKey []byte
	head    head
	aead    cipher.AEAD
	f       *os.File
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

func entryPlain(b []byte, floor uint64, e history.Entry) []byte {
	b = append(b, kindEntry)
	b = binary.BigEndian.AppendUint64(b, floor)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.At.Nanosecond()))
	return append(b, e.Data...)
}

const entrySize = 1 + 8 + 8 + 8 + 4

// entrySpace is what an entry takes in the segment.
func entrySpace(e history.Entry) int64 {
	return int64(frameSize + overhead + entrySize + len(e.Data))
}

// write appends b, whole records, to the file, or leaves it as it was. Only if
// even that fails is broken true.
func (s *segment) write(b []byte, records uint64) (broken bool, err error) {
	if _, err = s.f.WriteAt(b, s.size); err == nil {
		s.size += int64(len(b))
		return false, nil
	}
	s.records -= records
	return s.f.Truncate(s.size) != nil, err
}

// contents is what a segment's records add up to.
type contents struct {
	note    []byte
	entries []history.Entry
	floor   uint64
	lax     bool // not closed, and not every append was synced
	records uint64
	end     int64 // of the last complete record
	cut     int64 // bytes after it
}

// read parses a whole segment.
func (s *segment) read(data []byte) (c contents, err error) {
	if len(data) < len(segMagic) {
		if segMagic[:len(data)] != string(data) {
			return c, corrupt("this is no segment")
		}
		return contents{cut: int64(len(data))}, nil
	}
	if string(data[:len(segMagic)]) != segMagic {
		return c, corrupt("this is no segment")
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

// zero reports whether b is what some file systems leave where a write's
// length reached the disk and its content did not.
func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

func (c *contents) add(plain []byte) error {
	kind, body := plain[0], plain[1:]
	switch {
	case kind == kindNote:
		c.note = body
	case kind == kindOpen:
		c.lax = true
	case kind == kindClose && len(body) == 8:
		c.lax = false
		c.floor = max(c.floor, binary.BigEndian.Uint64(body))
	case kind == kindEntry && len(plain) >= entrySize:
		c.floor = max(c.floor, binary.BigEndian.Uint64(body))
		at := time.Unix(int64(binary.BigEndian.Uint64(body[16:])), int64(binary.BigEndian.Uint32(body[24:])))
		c.entries = append(c.entries, history.Entry{Seq: binary.BigEndian.Uint64(body[8:]), At: at, Data: body[28:]})
	default:
		return corrupt("a record of unknown kind")
	}
	return nil
}
