package relay

import (
	"context"
	"time"

	"postern/auth"
	"postern/internal/periodic"
	"postern/internal/textfile"
	"postern/mail"
	"postern/relay/config"
	"postern/relay/monitor"
	"postern/relay/sources"
)

// useSources adopts the sources of a configuration; nil: they stay.
func (a *accounts) useSources(list []auth.Source) {
	if list == nil {
		return
	}
	a.mu.Lock()
	a.sources = list
	a.broken = map[string]error{}
	a.mu.Unlock()
	a.SetSources(list)
	a.generation.Add(1)
	a.tellSources()
}

// newSources makes the sources of a configuration that follows on another; nil: those in force stay.
func (a *accounts) newSources(before, c *config.Config) ([]auth.Source, error) {
	if sources.Same(before, c) {
		return nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return sources.New(c, a.store, a.pepper, a.sources)
}

// sourceChanged hears that a source went down, or is up again.
func (a *accounts) sourceChanged(name string, err error) {
	if err != nil {
		a.log.Error("a source of logins cannot answer: logins that it decides get 454", "source", name, "err",
			mail.Printable(err.Error()))
	} else {
		a.log.Info("a source of logins answers again", "source", name)
	}
	a.tellSources()
}

// tellSources tells the monitor what is wrong with sources now.
func (a *accounts) tellSources() {
	var list []monitor.SourceTrouble
	for _, s := range a.SourceStates() {
		if s.Err != nil {
			list = append(list, monitor.SourceTrouble{Name: s.Name, Err: s.Err})
		}
	}
	a.mu.Lock()
	for name, err := range a.broken {
		list = append(list, monitor.SourceTrouble{Name: name, Err: err, File: true})
	}
	a.mu.Unlock()
	a.monitor.LoginSources(list)
}

// watchSources asks remote sources once at the start, then those that are down, and reads password files again when
// they change.
func (a *accounts) watchSources(ctx context.Context, poll time.Duration) {
	a.ProbeSources(ctx)
	a.tellSources() // an alert of the last process may be over
	known, last := a.fingerprint(), a.fingerprint()
	periodic.Run(ctx, poll, func() {
		a.ProbeDown(ctx)
		now := a.fingerprint()
		if !now.Same(known) && now.Same(last) { // seen twice: nobody is writing any more
			a.readFiles()
			known = now
		}
		last = now
	})
}

func (a *accounts) fingerprint() textfile.Fingerprint {
	a.mu.Lock()
	defer a.mu.Unlock()
	var paths []string
	for _, f := range sources.Files(a.sources) {
		paths = append(paths, f.Path())
	}
	return textfile.FingerprintOf(paths...)
}

// readFiles reads the password files again. What was read before stays in force where one is broken.
func (a *accounts) readFiles() {
	a.mu.Lock()
	files := sources.Files(a.sources)
	a.mu.Unlock()
	for _, f := range files {
		err := f.Reload()
		a.mu.Lock()
		delete(a.broken, f.Name())
		if err != nil {
			a.broken[f.Name()] = err
		}
		a.mu.Unlock()
		if err != nil {
			a.log.Error("the password file is not taken, what was read before stays in force", "source", f.Name(),
				"err", err)
			continue
		}
		a.log.Info("password file read", "source", f.Name(), "logins", f.Len())
	}
	a.changed()
	a.tellSources()
}
