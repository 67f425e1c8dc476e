package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/mail"
)

// readyTime bounds a health check. Who runs such checks has a limit too, and would only say that it took too long.
const readyTime = 4 * time.Second

// defaultAdmin is where a daemon answers whose relay.toml says nothing else, and one in a container as a rule.
const defaultAdmin = "127.0.0.1:8587"

// What `status --ready` and `status --alive` ask.
const (
	readyPath = "/readyz"
	alivePath = "/healthz"
)

// sayProbe is `status --ready` and `status --alive`.
func (a *app) sayProbe(cmd *cobra.Command, path string) error {
	answer, err := a.probe(cmd.Context(), path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
	return err
}

// probe returns what the daemon says first at that path, or an error with it: for who has no HTTP client, such as a
// container.
func (a *app) probe(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	c, err := a.read()
	if err != nil {
		// The daemon does not use a file that it refuses: it goes on with the one before, and is as well as it was.
		for _, secure := range []bool{false, true} {
			if answer, unwell := askProbe(ctx, defaultAdmin, secure, path); unwell == nil {
				return answer, nil
			}
		}
		return "", err
	}
	if c.Admin.Address == "" {
		return "", fmt.Errorf("[admin] address is \"\", so that nobody can ask the daemon how it is: write such "+
			"as %q", defaultAdmin)
	}
	return askProbe(ctx, c.Admin.Address, c.Admin.TLS, path)
}

// askProbe asks the daemon of this machine at its admin address. One that stands for all addresses of the machine is
// asked on this machine.
func askProbe(ctx context.Context, address string, secure bool, path string) (string, error) {
	scheme := map[bool]string{false: "http", true: "https"}[secure]
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		// Nothing secret is asked or told, and the certificate names what clients call the relay.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("no daemon answers at [admin] address %s: %w", address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	answer, _, _ := strings.Cut(string(body), "\n")
	answer = cmp.Or(mail.Printable(answer), response.Status)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("not ready: %s", answer)
	}
	return answer, err
}
