package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
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

// installService makes the service or changes the one that is there. A Windows without a terminal runs it, too: the
// MSI does.
func (a *app) installService() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	m, err := manager()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	if err := registerEvents(); err != nil { // first, so that what fails below can be read there
		return fmt.Errorf("register with the Event Log: %w", err)
	}
	was, err := m.OpenService(rights.Service)
	switch {
	case err == nil:
		defer was.Close()
	case !errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST):
		return err
	}
	path, err := a.serviceConfig(was)
	if err != nil {
		return err
	}
	if err := serviceDirectories(path); err != nil {
		return err
	}
	account, err := register(m, was, program, path)
	if err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	fmt.Printf("The service is installed. It reads %s and runs as %s.\n", path, account)
	if _, err := os.Stat(path); err != nil {
		fmt.Println("Next: postern setup; " + howto.Start)
		return nil
	}
	fmt.Println("Next: postern check; " + howto.Start)
	return nil
}

// serviceConfig is the relay.toml of the service: that of --config, or what it is installed with, or else
// $POSTERN_CONFIG or the usual one. was may be nil.
func (a *app) serviceConfig(was *mgr.Service) (string, error) {
	if a.configPath != "" {
		return filepath.Abs(a.configPath)
	}
	if was != nil {
		is, err := installed(was)
		if err != nil {
			return "", err
		}
		if path := configOf(is.command); path != "" {
			return path, nil
		}
	}
	if path := os.Getenv("POSTERN_CONFIG"); path != "" {
		return filepath.Abs(path)
	}
	return filepath.Join(places.Etc(), "relay.toml"), nil
}

// configOf is the file of --config of a command line, or "".
func configOf(command string) string {
	args, err := windows.DecomposeCommandLine(command)
	if err != nil {
		return ""
	}
	return configFlag(args)
}

// serviceDirectories makes and protects what the service uses. What is there is looked at before any of it is read.
func serviceDirectories(path string) error {
	if err := rights.ForService(places.Etc(), false); err != nil {
		return err
	}
	data, err := serviceData(path)
	if err != nil {
		return err
	}
	return rights.ForService(data, true)
}

// serviceData is the data_dir of a configuration, if there is one yet. Its rights are about to be changed, so it must
// not be named by others, and have nothing in it but a store. The directory of another relay.toml than the usual one is
// left to who made it.
func serviceData(path string) (string, error) {
	err := rights.Owned(path)
	if errors.Is(err, fs.ErrNotExist) {
		return places.DataDir(), nil
	}
	if err != nil {
		return "", err
	}
	c, err := config.Read(path)
	if err != nil {
		return places.DataDir(), nil // postern check says what is wrong
	}
	names, err := os.ReadDir(c.DataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	ours := []string{relaystore.FileName, relaystore.LockName, crashName}
	isOurs := func(d fs.DirEntry) bool { return slices.Contains(ours, d.Name()) }
	if len(names) > 0 && !slices.ContainsFunc(names, isOurs) {
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

// register makes the service with its account, or has the one that is there run this program with this relay.toml, and
// says which account it has. What somebody has changed stays: that it is disabled, or runs under another account.
func register(m *mgr.Mgr, was *mgr.Service, program, path string) (account string, err error) {
	args := []string{"serve", "--config", path, asService}
	if was == nil {
		c := mgr.Config{
			ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: mgr.StartAutomatic,
			ErrorControl: mgr.ErrorNormal, DisplayName: "Postern", ServiceStartName: `NT SERVICE\` + rights.Service,
			Description: "Takes mail from programs and devices that log in, and hands it to the mail provider.",
		}
		s, err := m.CreateService(rights.Service, program, c, args...)
		if err != nil {
			return "", err
		}
		defer s.Close()
		settle(s)
		return c.ServiceStartName, nil
	}
	is, err := installed(was)
	if err != nil {
		return "", err
	}
	command, err := windows.UTF16PtrFromString(windows.ComposeCommandLine(append([]string{program}, args...)))
	if err != nil {
		return "", err
	}
	err = windows.ChangeServiceConfig(was.Handle, windows.SERVICE_NO_CHANGE, windows.SERVICE_NO_CHANGE,
		windows.SERVICE_NO_CHANGE, command, nil, nil, nil, nil, nil, nil)
	if err != nil {
		return "", err
	}
	settle(was)
	return is.account, nil
}

// installation is what the service manager has of a service.
type installation struct{ command, account string }

// installed looks at a service. mgr.Service.Config asks for more, which Wine does not know.
func installed(s *mgr.Service) (installation, error) {
	const most = 8 << 10 // octets that Windows asks for at most
	buffer := make([]uint64, most/8)
	is := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buffer[0]))
	var needs uint32
	if err := windows.QueryServiceConfig(s.Handle, is, most, &needs); err != nil {
		return installation{}, fmt.Errorf("look at the installed service: %w", err)
	}
	return installation{windows.UTF16PtrToString(is.BinaryPathName), windows.UTF16PtrToString(is.ServiceStartName)}, nil
}

// settle says that it starts after what Windows itself needs, what happens when it fails, how long a shutdown waits for
// it, and that its process is in the group of the service, which may use its files, under another account too. It runs
// without.
func settle(s *mgr.Service) {
	wait, late, group := uint32(shutdownWait.Milliseconds()), uint32(1), uint32(windows.SERVICE_SID_TYPE_UNRESTRICTED)
	set := func(what uint32, value *uint32) error {
		return windows.ChangeServiceConfig2(s.Handle, what, (*byte)(unsafe.Pointer(value)))
	}
	err := errors.Join(set(windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, &late),
		s.SetRecoveryActions(restarts, failuresLast), s.SetRecoveryActionsOnNonCrashFailures(true),
		set(windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, &wait), set(windows.SERVICE_CONFIG_SERVICE_SID_INFO, &group))
	if err != nil {
		fmt.Printf("Windows does not take all of how the service is started: %v\n", err)
	}
}

// registerEvents has the Event Log show our texts by what Windows' own eventcreate has for that.
func registerEvents() error {
	_ = eventlog.Remove(rights.Service) // what an older version made
	return eventlog.InstallAsEventCreate(rights.Service, eventlog.Error|eventlog.Warning|eventlog.Info)
}

// noteFailure writes to the Event Log why a command failed that SYSTEM runs, as the MSI does: nobody sees its output.
func noteFailure(command string, err error) {
	if u, whoErr := user.Current(); err == nil || whoErr != nil || u.Uid != "S-1-5-18" {
		return
	}
	log, openErr := eventlog.Open(rights.Service)
	if openErr != nil {
		return
	}
	defer log.Close()
	fmt.Fprintf(&eventWriter{to: log}, "postern %s: %v", command, err)
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
		is, err := installed(s)
		if err != nil {
			return err
		}
		path := configOf(is.command)
		if given, err := filepath.Abs(a.configPath); err != nil || a.configPath != "" &&
			!strings.EqualFold(given, path) {
			return fmt.Errorf("the service reads %s; to have it read %s: postern service install --config %[2]s", path,
				a.configPath)
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no %s, which the service reads: postern setup", path)
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
