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

// runAsService reports false: only Windows runs programs so.
func runAsService(*app, []string) (code int, is bool) { return 0, false }
