// Command ociimage writes a container image of Postern without a daemon: an OCI image layout in one tar archive, with
// an index over the architectures (https://github.com/opencontainers/image-spec, version 1.1). Of the same binaries and
// time it makes the same octets anywhere.
//
//	ociimage -o FILE -version 1.2.3 -revision COMMIT -ca BUNDLE amd64=BINARY arm64=BINARY
//
// The time in it is SOURCE_DATE_EPOCH, which must be set.
package main

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	var s source
	out := flag.String("o", "", "the archive to write")
	ca := flag.String("ca", "", "PEM of the authorities that upstreams are verified against")
	flag.StringVar(&s.version, "version", "", "of Postern")
	flag.StringVar(&s.revision, "revision", "", "the commit, with -modified if the files are others")
	flag.Parse()
	if err := run(*out, *ca, s, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "ociimage:", err)
		os.Exit(1)
	}
}

func run(out, ca string, s source, binaries []string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return errors.New("SOURCE_DATE_EPOCH is not a number of seconds: set it to the commit's time")
	}
	s.created = time.Unix(seconds, 0).UTC()
	if s.authorities, err = readAuthorities(ca); err != nil {
		return err
	}
	if s.binaries, err = readBinaries(binaries); err != nil {
		return err
	}
	archive, err := s.archive()
	if err != nil {
		return err
	}
	return os.WriteFile(out, archive, 0o644)
}

// readAuthorities refuses what no connection could be verified by.
func readAuthorities(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authorities (Debian: ca-certificates): %w", err)
	}
	n := 0
	for rest := data; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("authorities: certificate %d in %s: %w", n+1, path, err)
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("authorities: %s has no certificate", path)
	}
	return data, nil
}

type binary struct {
	arch    string
	content []byte
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// readBinaries reads ARCH=PATH, and refuses a program that an image from scratch could not run.
func readBinaries(args []string) (all []binary, err error) {
	for _, arg := range args {
		arch, path, _ := strings.Cut(arg, "=")
		machine, known := machines[arch]
		if !known {
			return nil, fmt.Errorf("%q is not amd64=PATH or arm64=PATH", arg)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := elf.NewFile(bytes.NewReader(content))
		if err != nil {
			return nil, fmt.Errorf("%s is no program for Linux: %w", path, err)
		}
		if file.Machine != machine {
			return nil, fmt.Errorf("%s is for %s, not for %s", path, file.Machine, arch)
		}
		for _, p := range file.Progs {
			if p.Type == elf.PT_INTERP {
				return nil, fmt.Errorf("%s is not static: build it with CGO_ENABLED=0", path)
			}
		}
		all = append(all, binary{arch, content})
	}
	if len(all) == 0 {
		return nil, errors.New("no binaries: name them as amd64=PATH arm64=PATH")
	}
	return all, nil
}
