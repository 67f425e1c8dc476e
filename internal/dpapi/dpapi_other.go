//go:build !windows

package dpapi

func protect([]byte) ([]byte, error) { return nil, ErrElsewhere }

func unprotect([]byte) ([]byte, error) { return nil, ErrElsewhere }
