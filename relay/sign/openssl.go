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

static EVP_PKEY *loadKey(const unsigned char *der, long length, char *text, size_t size) {
	ERR_clear_error();
	EVP_PKEY *key = d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, length);
	if (key == NULL)
		why("d2i_PrivateKey", text, size);
	return key;
}

// sign has a context for each call: only the key may be shared by threads.
static int sign(EVP_PKEY *key, const unsigned char *digest, size_t digestLength, unsigned char *signature,
	size_t *length, char *text, size_t size) {
	const char *step = NULL;
	ERR_clear_error();
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(key, NULL);
	if (c == NULL)
		step = "EVP_PKEY_CTX_new";
	else if (EVP_PKEY_sign_init(c) <= 0)
		step = "EVP_PKEY_sign_init";
	else if (EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_PADDING) <= 0)
		step = "EVP_PKEY_CTX_set_rsa_padding";
	else if (EVP_PKEY_CTX_set_signature_md(c, EVP_sha256()) <= 0)
		step = "EVP_PKEY_CTX_set_signature_md";
	else if (EVP_PKEY_sign(c, signature, length, digest, digestLength) <= 0)
		step = "EVP_PKEY_sign";
	if (step != NULL)
		why(step, text, size);
	EVP_PKEY_CTX_free(c);
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
	"unsafe"
)

// Implementation names what computes RSA signatures, with its version at run time. Ed25519 is always Go's.
func Implementation() string {
	return "openssl " + C.GoString(C.OpenSSL_version(C.OPENSSL_VERSION_STRING)) + " (libcrypto)"
}

// signing bounds the signatures made at once. More than there are processors would only have the system run as many
// threads, which take processors from all else and make each signature slower.
var signing = make(chan struct{}, runtime.GOMAXPROCS(0))

// opensslKey signs by libcrypto, which takes a third of the time that crypto/rsa does. It is safe for use by several
// goroutines.
type opensslKey struct {
	key    *C.EVP_PKEY
	public *rsa.PublicKey
}

// newSigner hands the key to libcrypto. It is freed there when nothing refers to the signer any more.
func newSigner(k *rsa.PrivateKey) (crypto.Signer, error) {
	return loadDER(x509.MarshalPKCS1PrivateKey(k), &k.PublicKey)
}

func loadDER(der []byte, public *rsa.PublicKey) (crypto.Signer, error) {
	defer clear(der)
	var text [256]C.char
	key := C.loadKey((*C.uchar)(unsafe.SliceData(der)), C.long(len(der)), &text[0], C.size_t(len(text)))
	if key == nil {
		return nil, fmt.Errorf("OpenSSL does not load the key: %s", C.GoString(&text[0]))
	}
	s := &opensslKey{key: key, public: public}
	runtime.AddCleanup(s, func(key *C.EVP_PKEY) { C.EVP_PKEY_free(key) }, key)
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
	done := C.sign(s.key, (*C.uchar)(unsafe.SliceData(digest)), C.size_t(len(digest)),
		(*C.uchar)(unsafe.SliceData(signature)), &length, &text[0], C.size_t(len(text)))
	<-signing
	runtime.KeepAlive(s)
	if done == 0 {
		return nil, fmt.Errorf("OpenSSL does not sign: %s", C.GoString(&text[0]))
	}
	if err := rsa.VerifyPKCS1v15(s.public, crypto.SHA256, digest, signature[:length]); err != nil {
		return nil, fmt.Errorf("the signature that OpenSSL made is wrong and not used: %w", err)
	}
	return signature, nil
}
