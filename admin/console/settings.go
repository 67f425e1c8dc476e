package console

import (
	"strings"

	"postern/operate"
	"postern/relay/config"
)

// settingsPage shows the configuration in force.
var settingsPage = page{path: "/settings", title: "Settings", menu: true, needs: operate.SeeSettings, sheet: "settings",
	show: showSettings}

// settingsView is the body of the page.
type settingsView struct {
	Words    string
	Written  bool // only what stands in the file
	Any      bool
	Path     string
	Groups   []settingGroup
	Shown    int
	Warnings []string
}

// settingGroup is a block of relay.toml.
type settingGroup struct {
	Name, Note string
	Rows       []settingRow
}

// settingRow is a key without its block.
type settingRow struct {
	config.Setting
	Name string
}

// maxSettings bounds how many settings a page shows.
const maxSettings = 2000

func showSettings(v *visit) (any, error) {
	q := v.URL.Query()
	view := &settingsView{Words: strings.TrimSpace(plain(maxFilter, q.Get("q"))), Written: q.Get("written") == "1"}
	view.Any = view.Words != "" || view.Written
	f, err := v.console.Operations.Settings.List(v.Context(), v.actor, view.Words)
	if err != nil {
		return nil, err
	}
	view.Path, view.Warnings = f.Path, f.Warnings
	if view.Written {
		f = f.Written()
	}
	for _, s := range f.Settings {
		if view.Shown++; view.Shown > maxSettings {
			break
		}
		block, name := blockOf(s.Key)
		if n := len(view.Groups); n == 0 || view.Groups[n-1].Name != block {
			view.Groups = append(view.Groups, settingGroup{Name: block})
		}
		g := &view.Groups[len(view.Groups)-1]
		if name == "name" {
			g.Note = plain(80, s.Value)
		}
		g.Rows = append(g.Rows, settingRow{s, name})
	}
	return view, nil
}

// blockOf splits a key into its block and its name there.
func blockOf(key string) (block, name string) {
	at := strings.LastIndexByte(key, '.')
	if at < 0 {
		return "", key
	}
	return key[:at], key[at+1:]
}
