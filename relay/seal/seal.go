// Package seal encrypts the secrets in the store (consents, DKIM keys, the password pepper) with a key in a file beside
// it, so that with a copy of the store alone nobody can send, sign or guess passwords.
//
// Failure semantics: without the key nothing sealed can be read, and the error says which file is missing. A key is
// made only if there is none.
package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"

	"postern/internal/disk"
	"postern/internal/rights"
)

// KeyFile is the name of the key in data_dir. OldKeyFile is what it was called when it sealed consents alone.
const (
	KeyFile    = "seal.key"
	OldKeyFile = "grants.key"
)

// Sealer seals with XChaCha20-Poly1305. The nonce is 192 bits and random. The label that says what is sealed is
// authenticated with it: what was sealed as one thing does not open as another.
type Sealer struct {
	aead cipher.AEAD
	id   [4]byte // tells another key from damage
}

// The sealed form: version, key id, nonce, ciphertext.
const (
	sealVersion = 1
	sealHeader  = 1 + 4
)

// Errors of a Sealer.
var (
	ErrOtherKey = errors.New("sealed with another key")
	ErrDamaged  = errors.New("damaged, or sealed as something else")
)

// New takes a key of 32 octets.
func New(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	s := &Sealer{aead: aead}
	sum := sha256.Sum256(append([]byte("postern grant key id\x00"), key...))
	copy(s.id[:], sum[:])
	return s, nil
}

// OpenKey reads the key from dir, or makes it there. Nodes that share a store need the same key file.
func OpenKey(dir string) (*Sealer, error) {
	path := filepath.Join(dir, KeyFile)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Rename(filepath.Join(dir, OldKeyFile), path); errors.Is(err, fs.ErrNotExist) {
			err = makeKey(dir, path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("make the key that seals secrets: %w", err)
		}
		key, err = readKey(path) // another process may have been faster
	}
	if err != nil {
		return nil, err
	}
	return New(key)
}

func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r, err := rights.OfInfo(path, info)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || r.Open {
		return nil, fmt.Errorf("%s may be read by others (%s); run: %s", path, r, r.Command("600", path))
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("%s is no key: it has %d octets, not %d", path, len(key), chacha20poly1305.KeySize)
	}
	return key, nil
}

// makeKey writes the whole key, syncs it, and only then gives it its name, which Link does not take from another.
func makeKey(dir, path string) error {
	f, err := os.CreateTemp(dir, KeyFile+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return disk.SyncDir(dir)
}

// Seal seals plain as what label says.
func (s *Sealer) Seal(label string, plain []byte) []byte {
	out := make([]byte, sealHeader+chacha20poly1305.NonceSizeX,
		sealHeader+chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	out[0] = sealVersion
	copy(out[1:], s.id[:])
	_, _ = rand.Read(out[sealHeader:]) // never fails
	return s.aead.Seal(out, out[sealHeader:], plain, []byte(label))
}

// Open opens what Seal made; ErrOtherKey or ErrDamaged.
func (s *Sealer) Open(label string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealHeader+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead || sealed[0] != sealVersion {
		return nil, ErrDamaged
	}
	if [4]byte(sealed[1:sealHeader]) != s.id {
		return nil, ErrOtherKey
	}
	nonce, text := sealed[sealHeader:sealHeader+chacha20poly1305.NonceSizeX],
		sealed[sealHeader+chacha20poly1305.NonceSizeX:]
	plain, err := s.aead.Open(nil, nonce, text, []byte(label))
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}
