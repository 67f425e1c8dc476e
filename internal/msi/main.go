// Command msi helps scripts/packages to make a Windows package the same twice; wixl puts chance and the clock into it:
//
//	msi code NAME          prints the GUID of a name
//	msi stamp FILE SECONDS sets the times of a package, in Unix seconds
package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "msi: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "code":
		fmt.Println(code(args[1]))
		return nil
	case len(args) == 3 && args[0] == "stamp":
		seconds, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		file, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		if err := stamp(file, seconds); err != nil {
			return fmt.Errorf("%s: %w", args[1], err)
		}
		return os.WriteFile(args[1], file, 0o644)
	}
	return errors.New("usage: msi code NAME | msi stamp FILE SECONDS")
}

// upgradeCode is that of deploy/windows/postern.wxs, and the name space of the GUIDs of versions.
var upgradeCode = []byte{0xff, 0x0c, 0x18, 0xc8, 0x71, 0xc6, 0x5f, 0x1e,
	0x9d, 0x03, 0x05, 0x29, 0x82, 0x08, 0xd0, 0xde}

// code is a UUID by SHA-1 (RFC 9562 §5.5), as Windows Installer writes it.
func code(name string) string {
	sum := sha1.Sum(append(bytes.Clone(upgradeCode), name...))
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("{%x-%x-%x-%x-%x}", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
}

// summary is the format of the summary information, F29F85E0-4FF9-1068-AB91-08002B27B3D9, before its section.
var summary = []byte{0xe0, 0x85, 0x9f, 0xf2, 0xf9, 0x4f, 0x68, 0x10, 0xab, 0x91, 0x08, 0x00, 0x2b, 0x27, 0xb3, 0xd9}

// Properties of the summary that are times, and the type of such.
const (
	created  = 12
	saved    = 13
	fileTime = 0x40
)

// stamp sets the times of the summary information ([MS-OLEPS]), which it expects in one piece.
func stamp(file []byte, seconds int64) error {
	at := bytes.Index(file, summary)
	if at < 28 || bytes.Contains(file[at+1:], summary) {
		return errors.New("the summary information is not where it is expected")
	}
	begin := at - 28 // of the stream; its one section is at an offset that follows the format
	word := func(at int) int {
		if at < 0 || at+4 > len(file) {
			return -1
		}
		return int(binary.LittleEndian.Uint32(file[at:]))
	}
	section := begin + word(at+len(summary))
	set := 0
	for i := range min(max(word(section+4), 0), 32) {
		id, value := word(section+8+8*i), section+word(section+12+8*i)
		if (id == created || id == saved) && word(value) == fileTime && value+12 <= len(file) {
			const since1601 = 11644473600 // seconds, to 1970
			binary.LittleEndian.PutUint64(file[value+4:], uint64(seconds+since1601)*1e7)
			set++
		}
	}
	if set != 2 {
		return fmt.Errorf("%d of the 2 times of the summary information were found", set)
	}
	return nil
}
