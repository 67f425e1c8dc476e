//go:build !unix

package pgserver

import (
	"errors"
	"os/exec"
)

type credential struct{ Uid, Gid uint32 }

func runAs(*exec.Cmd, *credential) {}

func unprivileged() (*credential, error) { return nil, ErrMissing }

// ErrMissing is what there is where no server can be run.
var ErrMissing = errors.New("private servers of PostgreSQL are run on Unix only")

// Tool returns ErrMissing.
func Tool(string) (string, error) { return "", ErrMissing }
