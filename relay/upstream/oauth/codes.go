package oauth

import (
	"bytes"
	_ "embed"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"

	"postern/mail"
)

//go:embed codes.toml
var codesTOML []byte

// known is one trouble that authorization servers report, in plain words. codes.toml explains the fields.
type known struct {
	Code       string
	Text       string
	Passes     bool
	Cause, Fix string
	AppFix     string `toml:"app_fix"`
	// Error and Example are what a test holds every entry to.
	Error, Example string
}

func (k known) class() mail.Class {
	if k.Passes {
		return mail.BackPressure
	}
	return mail.AccountFault
}

func (k known) into(e *Error) *Error {
	e.Class, e.Code, e.Cause, e.Fix, e.appFix = k.class(), k.Code, k.Cause, k.Fix, k.AppFix
	return e
}

func lookup(code string, a answer) (known, bool) {
	for _, k := range knownCodes() {
		if k.Code != code {
			continue
		}
		if k.Text == "" || strings.Contains(strings.ToLower(a.detail+" "+a.sub), k.Text) {
			return k, true
		}
	}
	return known{}, false
}

// fixLogin is $login in codes.toml.
const fixLogin = "run: postern upstream login {name}"

// knownCodes reads codes.toml. A test has read it before.
var knownCodes = sync.OnceValue(func() []known {
	var file struct {
		Fixes map[string]string
		Code  []known
	}
	d := toml.NewDecoder(bytes.NewReader(codesTOML))
	if err := d.DisallowUnknownFields().Decode(&file); err != nil {
		panic("oauth: codes.toml: " + err.Error())
	}
	words := []string{"$login", fixLogin}
	for name, text := range file.Fixes {
		words = append(words, "$"+name, text)
	}
	r := strings.NewReplacer(words...)
	for i := range file.Code {
		k := &file.Code[i]
		k.Fix, k.AppFix = r.Replace(k.Fix), r.Replace(k.AppFix)
	}
	return file.Code
})
