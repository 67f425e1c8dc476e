package config

import (
	"slices"
	"strings"
	"time"

	"postern/relay/alert"
)

// alerts checks the hooks. No message says what was written as url: it is a secret.
func (v *validator) alerts() {
	for i := range v.Alerts {
		key, a := element("alert", i), &v.Alerts[i]
		v.alertURL(key+".url", i)
		for j, event := range a.Events {
			v.alertEvent(element(key+".events", j), event, slices.Index(a.Events, event) < j)
		}
		v.atLeast(key+".queue_age", a.QueueAge, time.Minute)
		if a.CAFile != "" {
			if _, err := readCertificates(a.CAFile); err != nil {
				v.fail(key+".ca_file", "%s", err)
			}
		}
	}
}

func (v *validator) alertURL(key string, i int) {
	url := v.Alerts[i].URL
	if !url.IsSet() {
		v.fail(key, `is missing, write the address of the hook, "env:NAME" or "file:PATH"`)
		return
	}
	if !url.literal() && strings.Contains(url.ref(), "://") { // what follows would be said as a name, and is the secret
		v.fail(key, `has env: or file: before an address, write the address alone`)
		return
	}
	if err := url.resolve(v.dir(), "address of the hook"); err != nil {
		v.fail(key, "%s", err)
		return
	}
	if err := alert.CheckURL(url.Value()); err != nil {
		v.fail(key, "%s", err)
		return
	}
	for j := range i {
		if v.Alerts[j].URL.Value() == url.Value() {
			v.fail(key, "is that of alert[%d] too, write all events there", j+1)
			return
		}
	}
}

func (v *validator) alertEvent(key, event string, twice bool) {
	names := make([]string, len(alert.Events()))
	for i, e := range alert.Events() {
		names[i] = string(e)
	}
	if v.oneOf(key, event, names...) && twice {
		v.fail(key, "%q stands twice, remove one", event)
	}
}
