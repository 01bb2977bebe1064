package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/relayguard/relayguard/history"
)

// defaultMaxLine is the default of ImportConfig.MaxLine, in bytes.
const defaultMaxLine = 16 << 20

const ageMagic = "age-encryption.org/"

// Reader reads an archive entry by entry. Trust its entries only after it has
// returned [io.EOF]: before that, the archive may turn out to be incomplete or
// changed. Only one goroutine may use a Reader at a time.
type Reader struct {
	medium medium
	r      *bufio.Reader // the plain text
	sum    hash.Hash
	max    int
	done   Progress
	line   uint64
	buf    []byte
	last   history.Entry
	err    error // the result of every further Next
}

// NewReader returns a Reader of the archive in r, after it has read the header.
// It refuses lines longer than maxLine bytes; 0 or less means 16 MiB.
//
// An encrypted archive needs identities. With identities, NewReader refuses an
// archive that is not encrypted, since somebody may have replaced the encrypted
// one. Every error is an [*Error].
func NewReader(r io.Reader, maxLine int, identities ...age.Identity) (*Reader, error) {
	if maxLine <= 0 {
		maxLine = defaultMaxLine
	}
	a := &Reader{medium: medium{r: r}, sum: sha256.New(), max: maxLine}
	in := bufio.NewReaderSize(&a.medium, 64<<10)
	magic, err := in.Peek(len(armor.Header))
	if err != nil && err != io.EOF {
		return nil, a.reading(err)
	}
	armored := string(magic) == armor.Header
	encrypted := armored || strings.HasPrefix(string(magic), ageMagic)
	switch {
	case encrypted && len(identities) == 0:
		return nil, &Error{Reason: ReasonEncrypted}
	case encrypted:
		var src io.Reader = in
		if armored {
			src = armor.NewReader(in)
		}
		plain, err := age.Decrypt(src, identities...)
		if err != nil {
			return nil, a.reading(err)
		}
		in = bufio.NewReaderSize(plain, 64<<10)
	}
	a.r = in
	var h header
	text, err := a.next()
	switch known := json.Unmarshal(text, &h) == nil && h.Format == formatName; {
	case err != nil:
		return nil, err
	case !known:
		return nil, &Error{Reason: ReasonForeign}
	case len(identities) > 0 && !encrypted:
		return nil, &Error{Reason: ReasonNotEncrypted}
	case h.Version != formatVersion && h.Version != finishedVersion:
		return nil, &Error{Reason: ReasonVersion}
	case !canonical(text, h), h.Finished != (h.Version == finishedVersion):
		return nil, &Error{Reason: ReasonDamaged, Line: 1}
	}
	a.done.Finished = h.Finished
	a.sum.Write(text)
	return a, nil
}

// medium remembers the error of r, because age does not return it.
type medium struct {
	r   io.Reader
	err error
}

func (m *medium) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if err != nil && err != io.EOF {
		m.err = err
	}
	return n, err
}

// reading returns the Error for err, which is an error of reading the archive.
func (a *Reader) reading(err error) error {
	var none *age.NoIdentityMatchError
	switch {
	case a.medium.err != nil:
		return &Error{Reason: ReasonFailed, Line: a.line, Err: a.medium.err}
	case errors.As(err, &none):
		return &Error{Reason: ReasonNoMatch}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Reason: ReasonTruncated, Line: a.line}
	}
	return &Error{Reason: ReasonDamaged, Line: a.line} // age refused the file
}

// canonical reports whether text is the line that Export writes for v. Other
// lines with the same content are refused, so that each content has one line.
func canonical(text []byte, v any) bool {
	b, err := encode(v)
	return err == nil && bytes.Equal(b, text)
}

// next returns the next line with its line end. It is valid until the next
// call.
func (a *Reader) next() ([]byte, error) {
	a.line++
	a.buf = a.buf[:0]
	for {
		part, err := a.r.ReadSlice('\n')
		if len(a.buf)+len(part) > a.max {
			if a.line == 1 {
				return nil, &Error{Reason: ReasonForeign}
			}
			return nil, &Error{Reason: ReasonTooLong, Line: a.line}
		}
		a.buf = append(a.buf, part...)
		switch {
		case err == nil:
			a.done.Bytes += int64(len(a.buf))
			return a.buf, nil
		case err == bufio.ErrBufferFull:
			continue
		case a.line == 1 && err == io.EOF && !bytes.HasPrefix(a.buf, []byte(`{"format":"`+formatName)):
			return nil, &Error{Reason: ReasonForeign}
		}
		return nil, a.reading(err)
	}
}

// Next returns the next entry. After the last entry, it checks the trailer and
// returns [io.EOF] if the archive is complete and unchanged. Any other error is
// an [*Error]. After an error, Next returns the same error again.
func (a *Reader) Next() (history.Entry, error) {
	if a.err != nil {
		return history.Entry{}, a.err
	}
	e, err := a.entry()
	a.err = err
	return e, err
}

// entry returns the next entry, or io.EOF.
func (a *Reader) entry() (history.Entry, error) {
	text, err := a.next()
	if err != nil {
		return history.Entry{}, err
	}
	if bytes.HasPrefix(text, []byte(`{"end":`)) {
		return history.Entry{}, a.end(text)
	}
	var l line
	if json.Unmarshal(text, &l) != nil {
		return history.Entry{}, &Error{Reason: ReasonDamaged, Line: a.line}
	}
	e := history.Entry{Seq: l.Seq, At: l.At}
	switch {
	case l.Text != nil:
		e.Data = []byte(*l.Text)
	case l.Base64 != nil:
		e.Data = *l.Base64
	}
	if e.Seq <= a.last.Seq || e.At.Before(a.last.At) || !canonical(text, lineOf(e)) {
		return history.Entry{}, &Error{Reason: ReasonDamaged, Line: a.line}
	}
	a.last = history.Entry{Seq: e.Seq, At: e.At}
	a.sum.Write(text)
	a.done.Entries++
	return e, nil
}

// end returns io.EOF if text is the right trailer and nothing follows it.
func (a *Reader) end(text []byte) error {
	if !canonical(text, trailer{true, a.done.Entries, hex.EncodeToString(a.sum.Sum(nil))}) {
		return &Error{Reason: ReasonDamaged, Line: a.line}
	}
	switch _, err := a.r.ReadByte(); {
	case err == nil:
		return &Error{Reason: ReasonDamaged, Line: a.line + 1}
	case err != io.EOF:
		return a.reading(err) // only here does age report that its last piece is missing
	}
	a.done.Done = true
	return io.EOF
}

// Progress returns how much of the archive the Reader has read.
func (a *Reader) Progress() Progress { return a.done }
