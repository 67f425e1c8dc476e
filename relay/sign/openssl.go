//go:build openssl

package sign

/*
#cgo LDFLAGS: -lcrypto
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#if OPENSSL_VERSION_MAJOR < 3
#error "OpenSSL 3.0 or newer is needed"
#endif

// why writes the first error, which is the cause of those after it. libcrypto keeps errors by thread and Go changes
// threads between two calls: each function below reads its own.
static void why(const char *step, char *text, size_t size) {
	char cause[160];
	unsigned long code = ERR_get_error();
	if (code == 0)
		BIO_snprintf(cause, sizeof cause, "no error is given");
	else
		ERR_error_string_n(code, cause, sizeof cause);
	BIO_snprintf(text, size, "%s: %s", step, cause);
	ERR_clear_error();
}

static EVP_PKEY *loadKey(int private, const unsigned char *der, long length, char *text, size_t size) {
	ERR_clear_error();
	EVP_PKEY *key = private ? d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, length)
		: d2i_PublicKey(EVP_PKEY_RSA, NULL, &der, length);
	if (key == NULL)
		why(private ? "d2i_PrivateKey" : "d2i_PublicKey", text, size);
	return key;
}

// prepare returns a context for PKCS #1 v1.5 with SHA-256, or NULL. Only the key may be shared by threads.
static EVP_PKEY_CTX *prepare(EVP_PKEY *key, int (*init)(EVP_PKEY_CTX *)) {
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key, NULL);
	if (c != NULL && init(c) > 0 && EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) > 0 &&
		EVP_PKEY_CTX_set_signature_md(c, EVP_sha256()) > 0)
		return c;
	EVP_PKEY_CTX_free(c);
	return NULL;
}

// sign makes a signature and has the public key verify it.
static int sign(EVP_PKEY *private, EVP_PKEY *public, const unsigned char *digest, size_t digestLength,
	unsigned char *signature, size_t *length, char *text, size_t size) {
	const char *step = NULL;
	ERR_clear_error();
	EVP_PKEY_CTX *s = prepare(private, EVP_PKEY_sign_init), *v = prepare(public, EVP_PKEY_verify_init);
	if (s == NULL || v == NULL)
		step = "EVP_PKEY_CTX_new, EVP_PKEY_sign_init and options";
	else if (EVP_PKEY_sign(s, signature, length, digest, digestLength) <= 0)
		step = "EVP_PKEY_sign";
	else if (EVP_PKEY_verify(v, signature, *length, digest, digestLength) != 1)
		step = "it made a wrong signature, which is not used: EVP_PKEY_verify";
	if (step != NULL)
		why(step, text, size);
	EVP_PKEY_CTX_free(s);
	EVP_PKEY_CTX_free(v);
	return step == NULL;
}
*/
import "C"

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Implementation names what computes RSA signatures, with its version at run time. Ed25519 is always Go's.
func Implementation() string {
	return "openssl " + C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION_STRING)) + " (libcrypto)"
}

// signing bounds the signatures made at once. More than there are processors would only have the system run as many
// threads, which take processors from all else and make each signature slower.
var signing = make(chan struct{}, runtime.GOMAXPROCS(0))

// halves are those of keys that libcrypto has: its memory is not Go's, and no profile shows it.
var halves atomic.Int64

// opensslKey signs by libcrypto. It is safe for use by several goroutines.
type opensslKey struct {
	private, verifier *C.EVP_PKEY
	public            *rsa.PublicKey
}

// newSigner hands the key to libcrypto. It is freed there when nothing refers to the signer any more.
func newSigner(k *rsa.PrivateKey) (crypto.Signer, error) {
	s, err := loadDER(x509.MarshalPKCS1PrivateKey(k), &rsa.PublicKey{N: k.N, E: k.E}) // k need not stay
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return s, nil
}

// loadDER has the two halves loaded apart: signatures are verified by what DNS has, whatever is in the private key.
func loadDER(der []byte, public *rsa.PublicKey) (*opensslKey, error) {
	defer clear(der)
	s := &opensslKey{public: public}
	for _, half := range []struct {
		key     **C.EVP_PKEY
		der     []byte
		private C.int
	}{{&s.private, der, 1}, {&s.verifier, x509.MarshalPKCS1PublicKey(public), 0}} {
		var text [256]C.char
		key := C.loadKey(half.private, (*C.uchar)(unsafe.SliceData(half.der)), C.long(len(half.der)), &text[0],
			C.size_t(len(text)))
		if key == nil {
			return nil, fmt.Errorf("OpenSSL does not load the key: %s", C.GoString(&text[0]))
		}
		halves.Add(1)
		runtime.AddCleanup(s, func(key *C.EVP_PKEY) { C.EVP_PKEY_free(key); halves.Add(-1) }, key)
		*half.key = key
	}
	return s, nil
}

func (s *opensslKey) Public() crypto.PublicKey { return s.public }

// Sign makes a signature by PKCS #1 v1.5 of a SHA-256, the only one that DKIM has for RSA. One that the public key does
// not verify is an error: a fault in the computation must not leave, since it can give the private key away.
func (s *opensslKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, errors.New("only PKCS #1 v1.5 with SHA-256 is implemented")
	}
	signature := make([]byte, s.public.Size())
	length := C.size_t(len(signature))
	var text [256]C.char
	signing <- struct{}{}
	done := C.sign(s.private, s.verifier, (*C.uchar)(unsafe.SliceData(digest)), C.size_t(len(digest)),
		(*C.uchar)(unsafe.SliceData(signature)), &length, &text[0], C.size_t(len(text)))
	<-signing
	runtime.KeepAlive(s)
	if done == 0 {
		return nil, fmt.Errorf("OpenSSL does not sign: %s", C.GoString(&text[0]))
	}
	return signature[:length], nil
}
