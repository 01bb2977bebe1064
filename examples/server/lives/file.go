package lives

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
)

const (
	magic    = "relayguard life 1\n"
	saltSize = 16
	maxPiece = 64 << 10
	overhead = 12 + 16 // nonce and tag
	maxLine  = 1 << 20 // of the archive: more than a message takes
)

// The form of an ID: when the life ended, in UTC, and 40 random bits.
const idTime = "20060102-150405"

var (
	idForm  = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z2-7]{8}$`)
	idCodes = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

func newID(ended time.Time) string {
	var b [5]byte
	rand.Read(b[:])
	return ended.UTC().Format(idTime) + "-" + idCodes.EncodeToString(b[:])
}

// ValidID reports whether id has the form of an ID. An ID is safe as the name
// of a file and as a part of a URL.
func ValidID(id string) bool { return idForm.MatchString(id) && !endOf(id).IsZero() }

// endOf returns the time in an ID, or the zero time.
func endOf(id string) time.Time {
	t, err := time.Parse(idTime, id[:min(len(id), len(idTime))])
	if err != nil {
		return time.Time{}
	}
	return t
}

const (
	suffix    = ".life"
	temporary = ".new"
)

func fileName(id string) string { return id + suffix }

func idOf(name string) (id string, ok bool) {
	id, ok = strings.CutSuffix(name, suffix)
	return id, ok && ValidID(id)
}

// leftover reports whether name is a file whose writing a crash has ended.
func leftover(name string) bool {
	name, ok := strings.CutSuffix(name, temporary)
	if !ok {
		return false
	}
	_, ok = idOf(name)
	return ok
}

// sealer returns the AEAD of one file.
func sealer(master, salt []byte, id string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, master, salt, "relayguard life "+id, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// place is the additional data of a piece.
func place(n uint64, last bool) []byte {
	b := binary.BigEndian.AppendUint64(nil, n)
	if last {
		return append(b, 1)
	}
	return append(b, 0)
}

// head is the first piece.
type head struct {
	Life
	Archive int64 `json:"archive"` // length of the archive
}

// seal writes the file of a life and returns its length.
func seal(w io.Writer, master []byte, r Recording) (int64, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	aead, err := sealer(master, salt, r.ID)
	if err != nil {
		return 0, err
	}
	export := func(w io.Writer) error {
		_, err := archive.Export(context.Background(), w, slices.Values(r.Entries), archive.ExportConfig{Exported: r.Ended})
		return err
	}
	var length counter
	if err := export(&length); err != nil {
		return 0, err
	}
	text, err := json.Marshal(head{r.Life, int64(length)})
	if err != nil {
		return 0, err
	}
	if len(text) > maxPiece {
		return 0, errors.New("the description is too long")
	}
	if _, err := w.Write(append([]byte(magic), salt...)); err != nil {
		return 0, err
	}
	p := &pieces{w: w, aead: aead, buf: make([]byte, 0, maxPiece)}
	if err := p.put(text, false); err != nil {
		return 0, err
	}
	if err := export(p); err != nil {
		return 0, err
	}
	return fileSize(len(text), int64(length)), p.put(p.buf, true)
}

// fileSize returns the size of a file with so long a description and archive.
func fileSize(described int, archived int64) int64 {
	full := max(archived-1, 0) / maxPiece // and the last, which is not empty
	return int64(len(magic)+saltSize+4+overhead+described) + archived + (full+1)*(4+overhead)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// pieces seals what is written to it. The last piece is in buf.
type pieces struct {
	w    io.Writer
	aead cipher.AEAD
	n    uint64
	buf  []byte
}

func (p *pieces) Write(b []byte) (written int, err error) {
	for written < len(b) {
		if len(p.buf) == maxPiece { // only now: more follows, so it is not the last
			if err := p.put(p.buf, false); err != nil {
				return written, err
			}
			p.buf = p.buf[:0]
		}
		n := min(maxPiece-len(p.buf), len(b)-written)
		p.buf = append(p.buf, b[written:written+n]...)
		written += n
	}
	return written, nil
}

func (p *pieces) put(plain []byte, last bool) error {
	sealed := binary.BigEndian.AppendUint32(make([]byte, 0, 4+overhead+len(plain)), uint32(overhead+len(plain)))
	sealed = p.aead.Seal(sealed, nil, plain, place(p.n, last))
	p.n++
	_, err := p.w.Write(sealed)
	return err
}

// reader reads the file of a life. As an [io.Reader], it is the archive.
type reader struct {
	r    *bufio.Reader
	aead cipher.AEAD
	n    uint64
	rest []byte // of the last piece that was read
	last bool   // there are no more pieces
	stop func() error

	life Life
	size int64 // that the file must have
}

// newReader reads the description of the life id. The error is ErrUnreadable,
// or that of r.
func newReader(r io.Reader, ring [][]byte, id string) (*reader, error) {
	f := &reader{r: bufio.NewReaderSize(r, maxPiece/4), stop: func() error { return nil }}
	begin := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(f.r, begin); err != nil {
		return nil, cut(err)
	}
	if string(begin[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w (it is no file of a life)", ErrUnreadable)
	}
	sealed, err := f.next()
	if err != nil {
		return nil, err
	}
	for _, master := range ring {
		if f.aead, err = sealer(master, begin[len(magic):], id); err != nil {
			return nil, err
		}
		text, err := f.aead.Open(nil, nil, sealed, place(0, false))
		if err != nil {
			continue
		}
		var h head
		if err := json.Unmarshal(text, &h); err != nil || h.ID != id {
			return nil, fmt.Errorf("%w (its description is malformed)", ErrUnreadable)
		}
		f.n, f.life, f.size = 1, h.Life, fileSize(len(text), h.Archive)
		return f, nil
	}
	return nil, ErrUnreadable
}

// next returns the next piece, sealed.
func (f *reader) next() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(f.r, length[:]); err != nil {
		return nil, cut(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < overhead || n > overhead+maxPiece {
		return nil, fmt.Errorf("%w (a piece is malformed)", ErrUnreadable)
	}
	sealed := make([]byte, n)
	if _, err := io.ReadFull(f.r, sealed); err != nil {
		return nil, cut(err)
	}
	return sealed, nil
}

// cut returns the error of a file that ends too early, or err.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w (its file ends too early)", ErrUnreadable)
	}
	return fmt.Errorf("lives: %w", err)
}

// Read implements [io.Reader].
func (f *reader) Read(b []byte) (int, error) {
	for len(f.rest) == 0 {
		if f.last {
			return 0, io.EOF
		}
		if err := f.stop(); err != nil {
			return 0, err
		}
		sealed, err := f.next()
		if err != nil {
			return 0, err
		}
		// The last piece is the one after which nothing follows.
		if _, err = f.r.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			return 0, cut(err)
		}
		f.last = err != nil
		if f.rest, err = f.aead.Open(sealed[:0:0], nil, sealed, place(f.n, f.last)); err != nil {
			return 0, fmt.Errorf("%w (a piece is damaged)", ErrUnreadable)
		}
		f.n++
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// entries calls each with every entry of the archive.
func (f *reader) entries(each func(history.Entry) error) error {
	in, err := archive.NewReader(f, maxLine)
	for err == nil {
		var e history.Entry
		if e, err = in.Next(); err == io.EOF {
			return nil
		}
		if err == nil {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	var refused *archive.Error
	switch {
	case errors.As(err, &refused) && refused.Err != nil:
		return refused.Err // of Read
	case errors.As(err, &refused):
		return fmt.Errorf("%w (%v)", ErrUnreadable, refused)
	}
	return err
}
