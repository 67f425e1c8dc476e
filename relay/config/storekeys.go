package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/certs"
)

// What becomes of new mail while the server of the store is away.
const (
	DegradedRefuse  = "refuse"  // 451 4.3.0
	DegradedHandoff = "handoff" // what an upstream takes at once is taken, for logins that are known
)

// sealKeySize is a SealKey without its base64, in octets.
const sealKeySize = 32

// storePassword is what messages call the password.
const storePassword = "password of the user at the server"

// makeSealKey says how a person gets one.
const makeSealKey = "make it once with: openssl rand -base64 32, and write it on every node as \"file:PATH\" or " +
	"\"env:NAME\""

// StoreSecrets reads password, "" for none, and seal_key of [store], the latter without its base64. Commands that work
// on the store need them without having loaded the whole. With SQLite both are "".
func StoreSecrets(c *Config) (password, sealKey auth.Secret, err error) {
	if !c.Store.URL.Server() {
		return "", "", nil
	}
	if c.Store.Password.IsSet() {
		if password, err = c.Store.Password.read(c.dir(), storePassword); err != nil {
			return "", "", fmt.Errorf("store.password: %w", err)
		}
	}
	if sealKey, err = readSealKey(c.Store.SealKey, c.dir()); err != nil {
		return "", "", fmt.Errorf("store.seal_key: %w", err)
	}
	return password, sealKey, nil
}

// readSealKey reads the key. No error has any of it.
func readSealKey(s Secret, dir string) (auth.Secret, error) {
	if !s.IsSet() {
		return "", errors.New("is not set: nodes seal what is secret in the database with a key that they share; " +
			makeSealKey)
	}
	text, err := s.read(dir, "key")
	if err != nil {
		return "", err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(key) != sealKeySize {
		return "", fmt.Errorf("is not %d octets in base64; %s", sealKeySize, makeSealKey)
	}
	if slices.Max(key) == slices.Min(key) {
		return "", errors.New("is one octet many times over, which anybody guesses; " + makeSealKey)
	}
	return auth.Secret(key), nil
}

// deriveStore fills in the name of the node: the machine's, since hostname is what all nodes are called by clients.
func deriveStore(c *Config) {
	if c.Store.URL.Server() && !c.doc.has("store.node") {
		c.Store.Node, _ = os.Hostname()
	}
}

func (v *validator) store() {
	if v.DataDir == "" {
		v.fail("data_dir", "is empty, write a directory that postern may write to")
	}
	v.degraded()
	if v.Store.URL.Server() {
		v.storeServer()
	} else {
		v.noStoreServer()
	}
	if !v.doc.has("privacy.history") {
		v.atLeast("store.history", v.Store.History, time.Hour)
	}
	v.storeSizes()
}

func (v *validator) degraded() {
	switch v.Store.Degraded {
	case DegradedRefuse:
	case DegradedHandoff:
		if !v.Store.URL.Server() {
			v.fail("store.degraded", "%q is for a store at PostgreSQL; remove it with SQLite, which is never away",
				DegradedHandoff)
		} else if !slices.ContainsFunc(v.Listeners, func(l Listener) bool { return l.Handoff > 0 }) {
			v.warn("store.degraded", "has no effect: no [[listener]] hands mail off, each has handoff = \"0s\"")
		}
	default:
		v.fail("store.degraded", "unknown value %q, write %q or %q", v.Store.Degraded, DegradedRefuse, DegradedHandoff)
	}
}

// noStoreServer tells of keys that SQLite has no use for. They may stand there already when somebody moves.
func (v *validator) noStoreServer() {
	for _, name := range []string{"password", "seal_key", "node", "degraded"} {
		if key := "store." + name; v.doc.has(key) && v.Store.Degraded != DegradedHandoff {
			v.warn(key, `has no effect with url = "sqlite": it is for a store at PostgreSQL; remove it unless you are `+
				`about to move there`)
		}
	}
}

func (v *validator) storeServer() {
	v.secret("store.password", v.Store.Password, storePassword)
	v.secret("store.seal_key", v.Store.SealKey, "key")
	if _, err := readSealKey(v.Store.SealKey, v.dir()); err != nil {
		v.fail("store.seal_key", "%s", err)
	}
	v.node()
	v.storeTLS()
	if v.doc.has("store.min_free") {
		v.warn("store.min_free", "has no effect with PostgreSQL: the disk is the server's, watch it there; remove it")
	}
	if u := v.Store.URL; len(u.hosts) > 1 && u.params.targetSession == sessionAny {
		v.warn("store.url", "target_session_attrs=any takes a standby, too, to which nothing can be written; write "+
			"read-write or leave it out")
	}
}

// node checks the name by which other nodes know this one.
func (v *validator) node() {
	name, whose := v.Store.Node, ""
	if !v.doc.has("store.node") {
		whose = "this machine's name "
	}
	fits := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	switch {
	case name == "" && whose != "":
		v.fail("store.node", "this machine has no name, write one that no other node has")
	case name == "":
		v.fail("store.node", "is empty, write a name that no other node has, or remove it for the machine's")
	case len(name) > 63 || strings.ContainsFunc(name, func(r rune) bool { return !fits(r) }):
		v.fail("store.node", "%s%q is not a name of up to 63 letters, digits, \"-\", \"_\" and \".\", write one that "+
			"no other node has", whose, name)
	case strings.EqualFold(strings.Split(name, ".")[0], "localhost"):
		v.warn("store.node", "%s%q is that of every machine, and nodes with one name take each other's mail; write "+
			"one that no other node has", whose, name)
	}
}

// storeTLS checks how the server is known, and the files of it.
func (v *validator) storeTLS() {
	u := v.Store.URL
	switch mode := u.SSLMode(); {
	case !u.Elsewhere() || mode == sslVerifyFull:
	case mode == "verify-ca":
		v.warn("store.url", "sslmode=verify-ca takes any server that the authority has certified for the one that was "+
			"meant; write verify-full, with the name in the certificate as host")
	default:
		v.warn("store.url", "with sslmode=%s anybody on the way can read and change mail, accounts and keys; write "+
			"verify-full, and sslrootcert=FILE where the server's authority is your own", mode)
	}
	p := u.params
	if p.sslRootCert != "" {
		if _, err := readCertificates(p.sslRootCert); err != nil {
			v.fail("store.url", "sslrootcert: %s", err)
		}
	}
	if p.sslCert == "" {
		return
	}
	if err := readable(p.sslKey); err != nil {
		v.fail("store.url", "sslkey: %s", err)
		return
	}
	if faults, ok := errors.AsType[certs.Faults](certs.CheckPair(p.sslCert, p.sslKey)); ok {
		for _, f := range faults {
			v.fail("store.url", "%s", f.Text)
		}
	}
}

func (v *validator) storeSizes() {
	largest := Size(0)
	for _, l := range v.Listeners {
		largest = max(largest, l.MaxMessageSize)
	}
	if v.Store.MaxSize != 0 && v.Store.MaxSize < 4*largest {
		v.fail("store.max_size", "%s holds hardly one message of %s, write at least %s, or 0 for no bound",
			v.Store.MaxSize, largest, 4*largest)
	}
	switch size := v.Store.HistorySize; {
	case !v.doc.has("store.history_size"):
	case size < 10e6:
		v.fail("store.history_size", "%s holds hardly a day, write at least 10MB", size)
	case v.Store.MaxSize != 0 && size > v.Store.MaxSize:
		v.fail("store.history_size", "%s is more than max_size %s, which holds mail too, write a part of it", size,
			v.Store.MaxSize)
	}
}
