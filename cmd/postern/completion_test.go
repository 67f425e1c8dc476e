package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// prompt is a machine on which somebody types: the scripts of all shells, a relay.toml and a store.
type prompt struct {
	t            *testing.T
	dir, scripts string
}

func newPrompt(t *testing.T) *prompt {
	t.Helper()
	p := &prompt{t: t, dir: t.TempDir(), scripts: t.TempDir()}
	for shell, file := range map[string]string{"bash": "postern.bash", "zsh": "_postern", "fish": "postern.fish",
		"powershell": "postern.ps1"} {
		out := testkit.Run(t, "", "completion", shell)
		if !out.OK {
			t.Fatal(out.Text)
		}
		if err := os.WriteFile(filepath.Join(p.scripts, file), []byte(out.Text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(testkit.Binary(t), filepath.Join(p.dir, "postern")); err != nil {
		t.Fatal(err)
	}
	writeTo(t, p.config(), "data_dir = \"data\"\n[[upstream]]\nname = \"office\"\nhost = \"smtp.example.net\"\n")
	return p
}

func (p *prompt) config() string { return filepath.Join(p.dir, "relay.toml") }

// postern runs a command on the store of the prompt.
func (p *prompt) postern(args ...string) {
	p.t.Helper()
	if out := testkit.Run(p.t, "", append([]string{"--config", p.config()}, args...)...); !out.OK {
		p.t.Fatal(out.Text)
	}
}

// shell runs a script by a shell, with postern in its PATH.
func (p *prompt) shell(script string, command ...string) string {
	p.t.Helper()
	cmd := exec.Command(testkit.Need(p.t, command[0]), append(command[1:], "-c", script)...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + p.dir + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "TERM=dumb", "LC_ALL=C.UTF-8",
		"POSTERN_CONFIG=" + p.config(), "S=" + p.scripts}
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", command[0], err, out)
	}
	return string(out)
}

// bash returns what bash proposes after a line, one a line.
func (p *prompt) bash(line string) string {
	p.t.Helper()
	return p.shell(`. /usr/share/bash-completion/bash_completion; . "$S/postern.bash"
		complete -p postern >/dev/null || exit 1
		COMP_LINE='`+line+`' COMP_POINT=${#COMP_LINE} COMP_TYPE=63
		IFS=' ' read -ra COMP_WORDS <<<"$COMP_LINE"
		[[ $COMP_LINE != *' ' ]] || COMP_WORDS+=('')
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		__start_postern
		printf '%s\n' "${COMPREPLY[@]}"`, "bash", "--norc")
}

// fish returns what fish proposes after a line.
func (p *prompt) fish(line string) string {
	p.t.Helper()
	return p.shell(`source $S/postern.fish; complete -C '`+line+`'`, "fish", "--no-config")
}

// zsh returns the line as zsh completes it: zsh has a terminal, at which the line and a tab are typed.
func (p *prompt) zsh(line string) string {
	p.t.Helper()
	return p.shell(`zmodload zsh/zpty; zpty z zsh -f -i
		zpty -w z 'fpath=($S $fpath); autoload -Uz compinit; compinit -u -D'
		zpty -w z 'said() { print -r -- "$BUFFER" > said; exit }; zle -N said; bindkey "^X" said'
		zpty -w -n z "`+line+`"$'\t\x18'
		while zpty -r z typed; do :; done
		cat said`, "zsh", "-f")
}

func TestCompletion(t *testing.T) {
	p := newPrompt(t)
	keepDocs(t, p.scripts, "completions")
	p.postern("user", "add", "anna@example.com", "--note", "of sales")
	p.postern("device", "add", "scanner-2", "--sender", "scans@example.com")
	for _, c := range []struct{ typed, want, zsh string }{
		{"postern que", "queue", "postern queue "},
		{"postern queue sho", "show", "postern queue show "},
		{"postern user show ann", "anna@example.com", "postern user show anna@example.com "},
		{"postern device limits sc", "scanner-2", "postern device limits scanner-2 "},
		{"postern upstream test o", "office", "postern upstream test office "},
		{"postern upstream profiles microsoft365-h", "microsoft365-hve", "postern upstream profiles microsoft365-hve "},
		{"postern queue list --he", "--held", "postern queue list --he"}, // --help too
		{"postern completion z", "zsh", "postern completion zsh "},
		{"postern check --config relay.t", "relay.toml", "postern check --config relay.toml "},
	} {
		if got := p.bash(c.typed); !strings.Contains(got, c.want) {
			t.Errorf("bash: %s: %q", c.typed, got)
		}
		if got := p.fish(c.typed); !strings.Contains(got, c.want) {
			t.Errorf("fish: %s: %q", c.typed, got)
		}
		if got := p.zsh(c.typed); !strings.HasPrefix(got, strings.TrimRight(c.zsh, " ")) {
			t.Errorf("zsh: %s: %q", c.typed, got)
		}
	}
	// What takes no file is offered none, and after its one argument nothing more.
	for _, typed := range []string{"postern user show r", "postern queue list r", "postern user show anna@example.com a"} {
		if got := strings.TrimSpace(p.bash(typed)); got != "" {
			t.Errorf("bash: %s: %q", typed, got)
		}
	}
	if script, err := os.ReadFile(filepath.Join(p.scripts, "postern.ps1")); err != nil ||
		!strings.Contains(string(script), "Register-ArgumentCompleter -CommandName 'postern'") {
		t.Errorf("%v: %.200s", err, script)
	}
}

// Somebody who presses a key for completion makes no store and is shown no error.
func TestCompletionTouchesNothing(t *testing.T) {
	p := newPrompt(t)
	for _, config := range []string{p.config(), filepath.Join(p.dir, "none.toml")} {
		out := testkit.Run(t, "", "__complete", "--config", config, "user", "show", "")
		if !out.OK || !strings.HasPrefix(out.Text, fmt.Sprintf(":%d\n", 36)) {
			t.Errorf("%+v", out)
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "data")); !os.IsNotExist(err) {
		t.Errorf("the data directory: %v", err)
	}
}
