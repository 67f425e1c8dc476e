package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"

	"postern/internal/howto"
	"postern/internal/places"
	"postern/internal/rights"
	"postern/relay/config"
	relaystore "postern/relay/store"
)

// How the service manager treats the service.
const (
	startWait    = time.Minute      // until it accepts mail
	stopWait     = 5 * time.Minute  // until it has drained
	shutdownWait = 90 * time.Second // what Windows is asked to give it when it shuts down
	failuresLast = 24 * 60 * 60     // seconds after which failures are forgotten
)

var restarts = []mgr.RecoveryAction{
	{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
	{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
	{Type: mgr.ServiceRestart, Delay: time.Minute}, // and so on
}

// installService makes the service or changes the one that is there.
func (a *app) installService() error {
	path, err := a.serviceConfig()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	m, err := manager()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	if err := rights.ForService(places.Etc(), false); err != nil {
		return err
	}
	data, err := serviceData(path)
	if err != nil {
		return err
	}
	if err := rights.ForService(data, true); err != nil {
		return err
	}
	s, err := register(m, program, path)
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	defer s.Close()
	if err := settle(s); err != nil { // it runs without
		fmt.Printf("Windows does not take all of how the service is started: %v\n", err)
	}
	if err := registerEvents(); err != nil {
		return fmt.Errorf("register with the Event Log: %w", err)
	}
	fmt.Printf("The service is installed. It reads %s and runs as NT SERVICE\\%s.\n", path, rights.Service)
	if _, err := os.Stat(path); err != nil {
		fmt.Println("Next: postern setup; " + howto.Start)
		return nil
	}
	fmt.Println("Next: postern check; " + howto.Start)
	return nil
}

// serviceConfig is the relay.toml of the service.
func (a *app) serviceConfig() (string, error) {
	if a.configPath != "" {
		return filepath.Abs(a.configPath)
	}
	return filepath.Join(places.Etc(), "relay.toml"), nil
}

// serviceData is the data_dir of a configuration, if there is one yet. Its rights are about to be changed, so it must
// not be named by others, and have nothing in it but a store. The directory of another relay.toml than the usual one is
// left to who made it.
func serviceData(path string) (string, error) {
	c, err := config.Read(path)
	if err != nil {
		return places.DataDir(), nil // postern check says what is wrong
	}
	r, err := rights.Of(path)
	switch {
	case err != nil:
		return "", err
	case !r.Trusted():
		return "", fmt.Errorf("%s belongs to %s, who is no administrator: look at it and write it anew", path,
			r.Owner())
	case r.AnyoneWrites:
		return "", fmt.Errorf("%s can be changed by others (%s), run: %s", path, r, r.Command("", path))
	}
	names, err := os.ReadDir(c.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	isStore := func(d fs.DirEntry) bool { return d.Name() == relaystore.FileName || d.Name() == relaystore.LockName }
	if len(names) > 0 && !slices.ContainsFunc(names, isStore) {
		return "", fmt.Errorf("%s: data_dir: there are files in %s, and none is of Postern: name a directory of "+
			"its own", path, c.DataDir)
	}
	return c.DataDir, nil
}

func manager() (*mgr.Mgr, error) {
	m, err := mgr.Connect()
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, errors.New("services are for administrators: open the terminal with \"Run as administrator\"")
	}
	return m, err
}

// register makes the service with its account, or changes it.
func register(m *mgr.Mgr, program, path string) (*mgr.Service, error) {
	c := mgr.Config{
		ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: mgr.StartAutomatic,
		ErrorControl: mgr.ErrorNormal, DisplayName: "Postern",
		ServiceStartName: `NT SERVICE\` + rights.Service,
		Description:      "Takes mail from programs and devices that log in, and hands it to the mail provider.",
	}
	s, err := m.OpenService(rights.Service)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return m.CreateService(rights.Service, program, c, "serve", "--config", path, asService)
	}
	if err != nil {
		return nil, err
	}
	if was, err := s.Config(); err == nil {
		c.StartType = was.StartType // whoever has disabled it meant that
	}
	c.BinaryPathName = windows.ComposeCommandLine([]string{program, "serve", "--config", path, asService})
	if err := s.UpdateConfig(c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// settle says that it starts after what Windows itself needs, what happens when it fails, and how long a shutdown
// waits for it.
func settle(s *mgr.Service) error {
	wait, late := uint32(shutdownWait.Milliseconds()), uint32(1)
	return errors.Join(windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO,
		(*byte)(unsafe.Pointer(&late))),
		s.SetRecoveryActions(restarts, failuresLast), s.SetRecoveryActionsOnNonCrashFailures(true),
		windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_PRESHUTDOWN_INFO,
			(*byte)(unsafe.Pointer(&wait))))
}

// registerEvents has the Event Log show our texts by what Windows' own eventcreate has for that.
func registerEvents() error {
	_ = eventlog.Remove(rights.Service) // what an older version made
	return eventlog.InstallAsEventCreate(rights.Service, eventlog.Error|eventlog.Warning|eventlog.Info)
}

// withService runs what is done with the installed service.
func withService(run func(*mgr.Service) error) error {
	m, err := manager()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	s, err := m.OpenService(rights.Service)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return errors.New("the service is not installed: postern service install")
	}
	if err != nil {
		return err
	}
	defer s.Close()
	return run(s)
}

func (a *app) removeService() error {
	return withService(func(s *mgr.Service) error {
		if err := stop(s); err != nil {
			return err
		}
		if err := s.Delete(); err != nil {
			return fmt.Errorf("remove the service: %w", err)
		}
		if err := eventlog.Remove(rights.Service); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the source of the Event Log: %w", err)
		}
		fmt.Printf("The service is removed. Mail, accounts and configuration are still in %s.\n", places.Etc())
		return nil
	})
}

func (a *app) startService() error {
	return withService(func(s *mgr.Service) error {
		path, err := a.serviceConfig()
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && a.configPath == "" {
			return fmt.Errorf("there is no %s yet: postern setup", path)
		}
		err = s.Start()
		if err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
			return fmt.Errorf("start the service: %w; its log: %s", err, howto.Log)
		}
		return await(s, svc.Running, startWait)
	})
}

func (a *app) stopService() error { return withService(stop) }

func stop(s *mgr.Service) error {
	_, err := s.Control(svc.Stop)
	switch {
	case errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE):
		return nil
	case err != nil && !errors.Is(err, windows.ERROR_SERVICE_CANNOT_ACCEPT_CTRL): // it may be stopping already
		return fmt.Errorf("stop the service: %w", err)
	}
	return await(s, svc.Stopped, stopWait)
}

// await waits until the service has a state.
func await(s *mgr.Service, state svc.State, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		is, err := s.Query()
		switch {
		case err != nil:
			return fmt.Errorf("look at the service: %w", err)
		case is.State == state:
			return nil
		case is.State == svc.Stopped:
			return fmt.Errorf("the service has stopped; its log says why: %s", howto.Log)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the service has not done it in %s; its log: %s", limit, howto.Log)
		}
	}
}
