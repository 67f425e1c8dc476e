//go:build !windows

package main

import (
	"errors"

	"postern/internal/howto"
)

var errNoService = errors.New("postern service is for Windows; here the package has a service: " + howto.Enable)

func (a *app) installService() error { return errNoService }
func (a *app) removeService() error  { return errNoService }
func (a *app) startService() error   { return errNoService }
func (a *app) stopService() error    { return errNoService }

// noteFailure does nothing: whoever runs a command sees why it failed.
func noteFailure(string, error) {}

// ownEnv has nothing to refuse: only root writes to the directory of the service.
func ownEnv(string) error { return nil }

// runAsService reports false: only Windows runs programs so.
func runAsService(*app, []string) (code int, is bool) { return 0, false }
