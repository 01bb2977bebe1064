package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
)

// A key file is a magic text, a salt, and the encrypted data key and head. The
// key of that encryption is derived from the master key and the salt.
//
// Version 1 had no line in its head: all its positions name the log itself. It
// is read, and each key file that is written is of version 2.
const (
	keyMagic  = "relayguard key 2\n"
	keyMagic1 = "relayguard key 1\n"
	saltSize  = 16
	keyFile   = len(keyMagic) + saltSize + 12 + KeySize + headSize + 16
	headSize  = 6 * 8
)

// head is the part of a log's state that is known even if the segment lost its
// end. It is in the key file, so one rename replaces the state on disk.
type head struct {
	id, line, epoch, last, noteEpoch uint64
	records                          uint64 // written to the segment before the rename
}

func (h head) append(b []byte) []byte {
	for _, v := range []uint64{h.id, h.line, h.epoch, h.last, h.noteEpoch, h.records} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func parseHead(b []byte) head {
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return head{u(0), u(1), u(2), u(3), u(4), u(5)}
}

func parseHead1(b []byte) head {
	id := b[:8]
	return parseHead(slices.Concat(id, id, b[8:]))
}

// errNoKey is the error for a key file without its magic text. Overwriting a
// key file destroys the text; damage seldom does.
var errNoKey = errors.New("the file is not a key file")

// sealer returns AES-256-GCM under key. It puts a random nonce before each
// ciphertext.
func sealer(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// wrapper returns the AEAD that encrypts a data key.
func wrapper(master, salt []byte) (cipher.AEAD, error) {
	kek, err := hkdf.Key(sha256.New, master, salt, "relayguard journal data key", KeySize)
	if err != nil {
		return nil, err
	}
	return sealer(kek)
}

// wrap returns the content of the key file of generation gen.
func wrap(master, dataKey []byte, h head, gen uint64) ([]byte, error) {
	file := append([]byte(keyMagic), make([]byte, saltSize)...)
	salt := file[len(keyMagic):]
	rand.Read(salt)
	aead, err := wrapper(master, salt)
	if err != nil {
		return nil, err
	}
	plain := h.append(append(make([]byte, 0, KeySize+headSize), dataKey...))
	return aead.Seal(file, nil, plain, binary.BigEndian.AppendUint64(nil, gen)), nil
}

// unwrap returns the data key and the head in a key file of generation gen. It
// tries each key of the ring.
func unwrap(ring [][]byte, file []byte, gen uint64) (dataKey []byte, h head, err error) {
	parse := parseHead
	switch {
	case len(file) == keyFile && string(file[:len(keyMagic)]) == keyMagic:
	case len(file) == keyFile-8 && string(file[:len(keyMagic1)]) == keyMagic1:
		parse = parseHead1
	default:
		return nil, head{}, &Error{"load", ReasonCorrupt, errNoKey}
	}
	salt, sealed := file[len(keyMagic):][:saltSize], file[len(keyMagic)+saltSize:]
	for _, master := range ring {
		aead, err := wrapper(master, salt)
		if err != nil {
			return nil, head{}, err
		}
		if plain, err := aead.Open(nil, nil, sealed, binary.BigEndian.AppendUint64(nil, gen)); err == nil {
			return plain[:KeySize], parse(plain[KeySize:]), nil
		}
	}
	// The file may be damaged instead; no one can distinguish the two.
	return nil, head{}, &Error{"load", ReasonWrongKey, nil}
}

// shred overwrites the content of a key file and syncs it.
func shred(f file) error {
	noise, err := content(f)
	if err != nil || len(noise) == 0 {
		return err
	}
	rand.Read(noise)
	if _, err := f.WriteAt(noise, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Truncate(0)
}
