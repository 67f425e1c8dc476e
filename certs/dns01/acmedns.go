package dns01

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// AcmeDNS publishes records at a server of acme-dns (github.com/joohoi/acme-dns), to which a CNAME points that a person
// publishes once.
type AcmeDNS struct {
	URL     string // of the server's API
	Account AcmeDNSAccount
	Keep    Keep // where an account is kept that was registered by itself
	Client  *http.Client
	Watch   *Watch // nil: nobody looks whether the record has arrived
}

// AcmeDNSAccount is an account at a server of acme-dns. A zero one is registered.
type AcmeDNSAccount struct {
	Username   string `json:"username"`
	Password   string `json:"password"`
	FullDomain string `json:"fulldomain"` // where the CNAME points
}

// Keep keeps an account. What it is given is a secret.
type Keep interface {
	Load(ctx context.Context, key string) ([]byte, error) // fs.ErrNotExist: there is none
	Store(ctx context.Context, key string, value []byte) error
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// Bounds of a question to the server.
const (
	apiTime   = 30 * time.Second
	maxAnswer = 64 << 10 // octets
)

// plainDomain is what the server may call an account's name: it ends in a record that a person copies.
var plainDomain = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,62}\.)+[A-Za-z0-9-]{1,63}$`)

// Target is where the CNAME of _acme-challenge points. The account is registered if there is none yet.
func (a *AcmeDNS) Target(ctx context.Context) (string, error) {
	account, err := a.account(ctx)
	return account.FullDomain, err
}

// Present publishes a record.
func (a *AcmeDNS) Present(ctx context.Context, name, value string) error {
	if err := check(name, value); err != nil {
		return err
	}
	account, err := a.account(ctx)
	if err != nil {
		return err
	}
	subdomain, _, _ := strings.Cut(account.FullDomain, ".")
	question := map[string]string{"subdomain": subdomain, "txt": value}
	if err := a.ask(ctx, "/update", &account, question, &struct{}{}); err != nil {
		return err
	}
	if a.Watch == nil {
		return nil
	}
	return a.Watch.Await(ctx, account.FullDomain, value)
}

// CleanUp does nothing: the server keeps the last two values and forgets older ones.
func (*AcmeDNS) CleanUp(context.Context, string, string) error { return nil }

// Settings tells settings apart.
func (a *AcmeDNS) Settings() string { return fmt.Sprint("acmedns", a.URL, a.Account) }

func (a *AcmeDNS) key() string {
	return "postern/acme-dns/" + strings.NewReplacer("://", "/").Replace(a.URL)
}

// account returns the configured account, the kept one, or a new one.
func (a *AcmeDNS) account(ctx context.Context) (account AcmeDNSAccount, err error) {
	if a.Account != account {
		return a.Account, nil
	}
	const lock = "postern_acme_dns"
	if err := a.Keep.Lock(ctx, lock); err != nil {
		return account, err
	}
	defer func() { err = errors.Join(err, a.Keep.Unlock(context.WithoutCancel(ctx), lock)) }()
	data, err := a.Keep.Load(ctx, a.key())
	if err == nil {
		return account, json.Unmarshal(data, &account)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return account, err
	}
	if err := a.ask(ctx, "/register", nil, struct{}{}, &account); err != nil {
		return account, err
	}
	if account.Username == "" || account.Password == "" || len(account.FullDomain) > maxText ||
		!plainDomain.MatchString(account.FullDomain) {
		return account, fmt.Errorf("acme-dns at %s registered no account that can be used", a.URL)
	}
	if data, err = json.Marshal(account); err != nil {
		return account, err
	}
	return account, a.Keep.Store(ctx, a.key(), data)
}

// ask posts a question to the API.
func (a *AcmeDNS) ask(ctx context.Context, path string, account *AcmeDNSAccount, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(a.URL, "/")+path,
		bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if account != nil {
		r.Header.Set("X-Api-User", account.Username)
		r.Header.Set("X-Api-Key", account.Password)
	}
	client := a.Client
	if client == nil {
		// The account's password must not follow a redirection.
		client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
	}
	resp, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("acme-dns: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("acme-dns at %s%s: %w", a.URL, path, err)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("acme-dns at %s%s answers %d: %.200q", a.URL, path, resp.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("acme-dns at %s%s answers something else: %w", a.URL, path, err)
	}
	return nil
}
