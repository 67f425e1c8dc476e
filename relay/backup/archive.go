package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"postern/auth"
	"postern/certs"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/seal"
	"postern/relay/store"
)

// Format is the version of the archive. An archive of a higher one is refused.
const Format = 1

// The first entry of an archive says what follows, the last is the checksum of the first.
const (
	manifestName = "manifest.json"
	sumName      = "manifest.sha256"
	configName   = "relay.toml"
)

// maxManifest bounds the first entry, in octets.
const maxManifest = 64 << 10

// Manifest is what a backup says of itself.
type Manifest struct {
	Format   int       `json:"format"`
	Made     time.Time `json:"made"`
	Version  string    `json:"version,omitempty"` // of the program that made it
	Schema   int       `json:"schema"`            // of its store
	Hostname string    `json:"hostname"`
	Mail     bool      `json:"mail"`     // it has the queue; false: that was left out
	Messages int64     `json:"messages"` // queued in it
	Octets   int64     `json:"octets"`   // of their contents
	LeftOut  int64     `json:"left_out"` // messages that were queued, and are not in it
	// Proof opens with the key that seals what is secret in the store: whether a key is the right one.
	Proof []byte `json:"proof"`
	Parts []Part `json:"parts"`
}

// maxPart bounds a part, in octets, so that sums of them do not overflow.
const maxPart = 1 << 50

// Part is a file of a backup.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // octets
	SHA256 string `json:"sha256"`
}

// HasKey reports whether it has the key that opens what is sealed in it.
func (m *Manifest) HasKey() bool {
	return slices.ContainsFunc(m.Parts, func(p Part) bool { return p.Name == seal.KeyFile })
}

// Size is how much its parts are, in octets.
func (m *Manifest) Size() (total int64) {
	for _, p := range m.Parts {
		total += p.Size
	}
	return total
}

// partNames are the names that parts may have: paths in the data directory, and relay.toml.
func partNames() []string {
	names := []string{store.FileName, store.AnswersName, store.AlertsName, seal.KeyFile, configName}
	for _, name := range certs.SelfSignedFiles() {
		names = append(names, path.Join(config.TLSDir, name))
	}
	return names
}

// ErrNewer: the backup is of a version of the program that this one does not know.
var ErrNewer = errors.New("it was made by a newer postern: install that version, or a later one")

// errCut: the archive ends before its end.
var errCut = errors.New("it is cut off")

// secretPart reports whether a part is in encrypted backups alone.
func secretPart(name string) bool {
	return name == seal.KeyFile || name == configName || strings.HasPrefix(name, config.TLSDir+"/")
}

// check returns what is wrong with a manifest.
func (m *Manifest) check(encrypted bool) error {
	known, seen := partNames(), map[string]bool{}
	for _, p := range m.Parts {
		switch sum, err := hex.DecodeString(p.SHA256); {
		case !slices.Contains(known, p.Name):
			return fmt.Errorf("it has a part %.60q, which no backup has", p.Name)
		case !encrypted && secretPart(p.Name):
			return fmt.Errorf("it is not encrypted and has %s, which only encrypted backups have: somebody else "+
				"made it", p.Name)
		case seen[p.Name]:
			return fmt.Errorf("it has %s twice", p.Name)
		case p.Size < 0 || p.Size > maxPart || err != nil || len(sum) != sha256.Size:
			return fmt.Errorf("what it says of %s is wrong", p.Name)
		}
		seen[p.Name] = true
	}
	if !seen[store.FileName] {
		return fmt.Errorf("it has no %s", store.FileName)
	}
	return nil
}

// file is a part on its way into an archive. Its content is in memory, or in a file.
type file struct {
	Part
	data []byte
	path string // "": in data
}

func (f *file) open() (io.ReadCloser, error) {
	if f.path == "" {
		return io.NopCloser(bytes.NewReader(f.data)), nil
	}
	return os.Open(f.path)
}

// measure fills in size and checksum.
func (f *file) measure() error {
	r, err := f.open()
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	f.Size, err = io.Copy(sum, r)
	f.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return err
}

// writeArchive writes m, whose parts are files, encrypted with a passphrase unless that is empty. work is the factor of
// scrypt.
func writeArchive(w io.Writer, m *Manifest, files []file, passphrase auth.Secret, work int) error {
	if passphrase == "" {
		return writeTar(w, m, files)
	}
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return err
	}
	to.SetWorkFactor(work)
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(sealed, m, files), sealed.Close())
}

// workFactor of scrypt, as a power of two: about a second, and 256 MB. A file that asks for more is refused.
const workFactor = 18

func writeTar(w io.Writer, m *Manifest, files []file) error {
	m.Parts = nil
	for _, f := range files {
		m.Parts = append(m.Parts, f.Part)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if len(text) > maxManifest {
		return errors.New("its manifest is too long")
	}
	t := tar.NewWriter(w)
	sum := file{Part: Part{Name: sumName}, data: []byte(sumOf(text))}
	all := append([]file{{Part: Part{Name: manifestName}, data: text}}, files...)
	for _, f := range append(all, sum) {
		if err := f.writeTo(t, m.Made); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return t.Close()
}

// writeTo writes an entry. A file in memory need not have been measured.
func (f *file) writeTo(t *tar.Writer, made time.Time) error {
	if f.path == "" {
		f.Size = int64(len(f.data))
	}
	r, err := f.open()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o600, ModTime: made})
	if err == nil {
		_, err = io.Copy(t, r)
	}
	return errors.Join(err, r.Close())
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// ageHeader begins what age has encrypted.
const ageHeader = "age-encryption.org/v1\n"

// Passphrase is the one to decrypt with.
type Passphrase struct {
	Ask   func() (auth.Secret, error) // is called only if the backup is encrypted
	Given bool                        // a backup that is not encrypted is refused: it is not the one that was meant
}

// plain is what an archive is read from.
type plain struct {
	io.Reader
	encrypted bool // it was
}

// decrypted is the archive behind an encryption, if there is one.
func decrypted(r io.Reader, passphrase Passphrase) (plain, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if head, err := b.Peek(len(ageHeader)); string(head) != ageHeader {
		if passphrase.Given && (err == nil || err == io.EOF) {
			err = errors.New("it is not encrypted, and a passphrase was given: it is not the backup that was made " +
				"with one; say no passphrase if it is the right file all the same")
			return plain{}, err
		}
		return plain{Reader: b}, nil
	}
	archive, err := decrypt(b, passphrase.Ask)
	return plain{archive, true}, err
}

func decrypt(r io.Reader, passphrase func() (auth.Secret, error)) (io.Reader, error) {
	secret, err := passphrase()
	if err != nil {
		return nil, err
	}
	by, err := age.NewScryptIdentity(string(secret))
	if err != nil {
		return nil, err
	}
	by.SetMaxWorkFactor(workFactor)
	archive, err := age.Decrypt(r, by)
	if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
		return nil, errors.New("the passphrase is another one")
	}
	return archive, err
}

// readArchive tells begin what the backup says of itself, gives each part to use, in order, and returns the manifest.
// Nothing of what they got is to be believed before readArchive has returned nil: checksums come last.
func readArchive(r plain, begin func(m *Manifest) error, use func(p Part, r io.Reader) error) (m Manifest, err error) {
	t := tar.NewReader(r)
	text, err := small(t, manifestName, maxManifest)
	if err != nil {
		return m, err
	}
	if m, err = parseManifest(text, r.encrypted); err == nil {
		err = begin(&m)
	}
	if err != nil {
		return m, err
	}
	for _, p := range m.Parts {
		if err := readPart(t, p, use); err != nil {
			return m, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	sum, err := small(t, sumName, 2*sha256.Size)
	if err == nil && string(sum) != sumOf(text) {
		err = errors.New("its manifest is damaged")
	}
	if err != nil {
		return m, err
	}
	if _, err := t.Next(); err != io.EOF {
		return m, errors.Join(errors.New("something stands behind its end"), err)
	}
	// An encryption is verified by reading to its end.
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1)); n != 0 || err != nil {
		return m, errors.Join(errors.New("something stands behind its end"), err)
	}
	return m, nil
}

func parseManifest(text []byte, encrypted bool) (m Manifest, err error) {
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &format); err != nil || format.Format < 1 {
		return m, errors.New("its manifest is damaged")
	}
	if format.Format > Format {
		return m, ErrNewer
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, errors.New("its manifest is damaged")
	}
	return m, m.check(encrypted)
}

// next is the next entry, which must be a regular file of that name.
func next(t *tar.Reader, name string) (*tar.Header, error) {
	h, err := t.Next()
	switch {
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCut
	case err != nil:
		return nil, err
	case h.Name != name || h.Typeflag != tar.TypeReg || slices.ContainsFunc(slices.Collect(maps.Keys(h.PAXRecords)),
		func(key string) bool { return key != "size" }): // which files above 8 GB have; others make small files big
		return nil, fmt.Errorf("there is %.60q in place of the file %s", mail.Printable(h.Name), name)
	}
	return h, nil
}

func small(t *tar.Reader, name string, most int64) ([]byte, error) {
	h, err := next(t, name)
	if err != nil {
		return nil, err
	}
	if h.Size > most {
		return nil, fmt.Errorf("%s has %d octets, and may have %d", name, h.Size, most)
	}
	text, err := io.ReadAll(t)
	return text, cutOff(err)
}

func readPart(t *tar.Reader, p Part, use func(p Part, r io.Reader) error) error {
	h, err := next(t, p.Name)
	if err != nil {
		return err
	}
	if h.Size != p.Size {
		return fmt.Errorf("it has %d octets, and the manifest says %d", h.Size, p.Size)
	}
	sum := sha256.New()
	err = use(p, io.TeeReader(t, sum))
	if err == nil {
		_, err = io.Copy(sum, t) // what use did not want
	}
	if err != nil {
		return cutOff(err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != strings.ToLower(p.SHA256) {
		return errors.New("it is damaged: its checksum is another one")
	}
	return nil
}

func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}
