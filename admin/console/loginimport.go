package console

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"postern/operate"
)

// importPage takes in a table of logins and devices.
var importPage = page{path: "/logins/add/table", title: "Import a table", under: "/logins",
	needs: operate.ImportAccounts,
	sheet: "loginimport", show: func(*visit) (any, error) { return &importView{}, nil }, actions: []action{
		{path: "/logins/act/import", needs: operate.ImportAccounts, do: importLogins},
		{path: "/logins/act/passwords", needs: operate.ImportAccounts, do: takePasswords},
	}}

// importView is the body of the page.
type importView struct {
	Table  string // that was typed or pasted
	Update bool
	Checks *operate.Imported // what it would do, after a check
	Wrong  []wrongLine
	More   int // wrong lines than those
}

// wrongLine is what is wrong in a line of a table.
type wrongLine struct{ Text, Lang string }

// wrongLineOf says "LINE: what" in the visitor's language.
func wrongLineOf(v *visit, text string) wrongLine {
	at, what, _ := strings.Cut(plain(400, text), ": ")
	said := v.said(what)
	return wrongLine{at + ": " + said.Text, said.Lang}
}

// importedView is what an import did.
type importedView struct {
	operate.Imported
	Warnings []wrongLine
	Later    []Said // what cannot be used yet
	First    []operate.Credential
	Token    string // by which the passwords are fetched; "" where none was made
}

// Bounds of the page.
const (
	shownWrong     = 100
	shownPasswords = 100
)

func importLogins(v *visit) (string, any, error) {
	bePatient(v, longestAction)
	table, name, err := tableOf(v)
	if err != nil {
		return "", nil, err
	}
	view := &importView{Table: plainLines(maxForm, string(table)), Update: v.PostForm.Get("update") == "1"}
	if name != "" {
		view.Table = "" // browsers do not fill in a file again
	}
	done := importedView{}
	o := operate.Import{Update: view.Update, DryRun: v.PostForm.Get("check") == "1",
		Warn: func(line int, text string) {
			if len(done.Warnings) < shownWrong {
				done.Warnings = append(done.Warnings, wrongLineOf(v, strconv.Itoa(line)+": "+text))
			}
		}}
	done.Imported, err = v.console.Operations.Accounts.Import(v.Context(), v.actor, table, o)
	if wrong, is := errors.AsType[*operate.TableError](err); is {
		for _, line := range wrong.Lines[:min(len(wrong.Lines), shownWrong)] {
			view.Wrong = append(view.Wrong, wrongLineOf(v, line))
		}
		view.More = len(wrong.Lines) - len(view.Wrong)
		return "", view, nil
	}
	if err != nil {
		return "", nil, err
	}
	if o.DryRun {
		view.Checks = &done.Imported
		return "", view, nil
	}
	for _, note := range done.Notes {
		done.Later = append(done.Later, v.said(note))
	}
	if n := len(done.Passwords); n > 0 {
		done.First = done.Passwords[:min(n, shownPasswords)]
		done.Token = v.console.keepFile(v.Context(), v.actor.Name, v.now, passwordFile(done.Passwords))
	}
	return "", otherSheet{"imported", "Import a table", done}, nil
}

// tableOf reads the table of a form: a file, or else what was pasted.
func tableOf(v *visit) (data []byte, name string, err error) {
	unreadable := &operate.Error{Kind: operate.Invalid,
		Msg: v.t("What was sent cannot be read, or is too much at once.")}
	if err := v.ParseMultipartForm(maxForm); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return nil, "", unreadable
	}
	file, header, err := v.FormFile("file")
	if err != nil || header.Size == 0 {
		return []byte(v.PostForm.Get("table")), "", nil
	}
	defer file.Close()
	data, err = io.ReadAll(file)
	if err != nil {
		return nil, "", unreadable
	}
	return data, header.Filename, nil
}

// passwordFile is the generated passwords as a table.
func passwordFile(all []operate.Credential) attachment {
	var b bytes.Buffer
	_ = operate.WritePasswords(&b, all) // to memory
	return attachment{"postern-passwords.csv", "text/csv; charset=utf-8", b.Bytes()}
}

// takePasswords hands the generated passwords out, once.
func takePasswords(v *visit) (string, any, error) {
	file, ok, err := v.console.takeFile(v.Context(), v.actor.Name, v.PostForm.Get("token"), v.now)
	if err != nil {
		return "", nil, err
	}
	if !ok {
		return "", nil, &operate.Error{Kind: operate.NotFound,
			Msg: v.t("These passwords were saved already, or are older than 10 minutes.") + " " +
				v.t("Make new ones where they are needed.")}
	}
	return "", file, nil
}
