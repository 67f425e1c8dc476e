package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
)

// The link that the demo prints logs in to its console, once; the console itself knows no such way in.
func TestDemoConsole(t *testing.T) {
	var out bytes.Buffer
	d := &demo{out: &out, records: map[string]string{}}
	defer d.close()
	for _, step := range []func() error{
		func() error { return d.startUpstream(t.Context()) }, func() error { return d.startRelay(t.Context()) },
		func() error { return d.openConsole(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	printConsole(d.out, d.door)
	if !strings.Contains(out.String(), d.door.link) || !strings.Contains(out.String(), d.door.secret) {
		t.Errorf("it prints no way in:\n%s", &out)
	}
	get := func(c *http.Client, address string) (int, string) {
		t.Helper()
		resp, err := c.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	browser := func() *http.Client {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Client{Jar: jar}
	}
	first := browser()
	if status, body := get(first, d.door.link+"x"); status != 404 {
		t.Errorf("another link: %d %s", status, body)
	}
	if status, body := get(first, d.door.link); status != 200 || !strings.Contains(body, `title="Your account">demo<`) {
		t.Errorf("the link: %d %s", status, body)
	}
	if status, body := get(browser(), d.door.link); status != 410 {
		t.Errorf("the link again: %d %s", status, body)
	}
	if status, body := get(browser(), d.door.access.URL().String()); status != 200 || strings.Contains(body, "demo<") {
		t.Errorf("the console without it: %d %s", status, body)
	}
}
