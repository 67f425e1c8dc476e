package dpapi

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/windows"
)

// entropy keeps what other programs of this machine sealed from being taken for ours, and ours for theirs.
var entropy = []byte("Postern secret 1")

const flags = windows.CRYPTPROTECT_LOCAL_MACHINE | windows.CRYPTPROTECT_UI_FORBIDDEN

func protect(secret []byte) ([]byte, error) {
	var out windows.DataBlob
	name, err := windows.UTF16PtrFromString("Postern")
	if err != nil {
		return nil, err
	}
	if err := windows.CryptProtectData(blob(secret), name, blob(entropy), 0, nil, flags, &out); err != nil {
		return nil, err
	}
	return take(out), nil
}

func unprotect(sealed []byte) ([]byte, error) {
	var out windows.DataBlob
	if err := windows.CryptUnprotectData(blob(sealed), nil, blob(entropy), 0, nil, flags, &out); err != nil {
		return nil, err
	}
	return take(out), nil
}

func blob(b []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(b)), Data: unsafe.SliceData(b)}
}

// take copies what Windows allocated, wipes and frees it.
func take(b windows.DataBlob) []byte {
	theirs := unsafe.Slice(b.Data, b.Size)
	ours := bytes.Clone(theirs)
	clear(theirs)
	_, _ = windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data))) // leaks a few octets at worst
	return ours
}
