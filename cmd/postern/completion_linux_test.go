package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
		if !out.OK || !strings.Contains(out.Text, "__complete") { // by which it asks the binary
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

// run runs a command with postern in its PATH.
func (p *prompt) run(stdin string, command ...string) {
	p.t.Helper()
	cmd := exec.Command(testkit.Need(p.t, command[0]), command[1:]...)
	cmd.Dir, cmd.Stdin = p.dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + p.dir + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "TERM=dumb", "LC_ALL=C.UTF-8",
		"POSTERN_CONFIG=" + p.config(), "SCRIPTS=" + p.scripts}
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// said returns what a shell left in the file of that name: a line for each that was typed.
func (p *prompt) said() []string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "said"))
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// completed types lines at a terminal of an interactive shell, each with a tab and a key that has the shell write down
// what its line is then.
func (p *prompt) completed(shell string, lines []string) []string {
	p.t.Helper()
	testkit.Need(p.t, strings.Fields(shell)[0])
	p.run(strings.Join(lines, "\t\x14")+"\t\x14exit\n", "script", "-qec", shell, "/dev/null")
	return p.said()
}

func (p *prompt) bash(lines []string) []string {
	testkit.Need(p.t, "bash-completion")
	writeTo(p.t, filepath.Join(p.dir, "rc"), `. /usr/share/bash-completion/bash_completion
		. "$SCRIPTS/postern.bash"
		complete -p postern >/dev/null || exit 1
		say() { printf '%s\n' "$READLINE_LINE" >>said; READLINE_LINE=; }
		bind -x '"\C-t": say'
		: >said`)
	return p.completed("bash --noprofile --rcfile rc -i", lines)
}

func (p *prompt) zsh(lines []string) []string {
	writeTo(p.t, filepath.Join(p.dir, ".zshrc"), `fpath=("$SCRIPTS" $fpath); autoload -Uz compinit; compinit -u -D
		say() { print -r -- "$BUFFER" >>said; BUFFER= }
		zle -N say; bindkey '^T' say
		: >said`)
	return p.completed("zsh --no-globalrcs -i", lines)
}

// fish has a command that says what it would propose: the only word, with a tab and what is said of it.
func (p *prompt) fish(lines []string) []string {
	script := "source $SCRIPTS/postern.fish\n"
	for _, line := range lines {
		script += "echo (complete -C '" + line + "') >>said\n"
	}
	p.run("", "fish", "--no-config", "-c", script)
	return p.said()
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	p := newPrompt(t)
	keepDocs(t, p.scripts, "completions")
	p.postern("user", "add", "anna@example.com", "--note", "of sales")
	p.postern("device", "add", "scanner-2", "--sender", "scans@example.com")
	lines := []struct{ typed, added string }{
		{"postern que", "ue "},
		{"postern queue sho", "w "},
		{"postern user show ann", "a@example.com "},
		{"postern device limits sc", "anner-2 "},
		{"postern upstream test o", "ffice "},
		{"postern upstream profiles microsoft365-h", "ve "},
		{"postern queue list --hel", ""}, // --held or --help
		{"postern queue list --held --js", "on "},
		{"postern completion z", "sh "},
		{"postern trace --login ann", "a@example.com "},
		{"postern upstream judge --upstream off", "ice "},
		{"postern check --config relay.t", "oml "},
		{"postern user import relay.t", "oml "},
		{"postern restore relay.t", "oml "},
		{"postern restore x --queue ho", "ld "},
		// What takes no file is offered none, and after its one argument nothing more.
		{"postern user show relay.t", ""},
		{"postern queue list relay.t", ""},
		{"postern user show anna@example.com ann", ""},
	}
	var typed []string
	for _, l := range lines {
		typed = append(typed, l.typed)
	}
	for shell, complete := range map[string]func([]string) []string{"bash": p.bash, "zsh": p.zsh} {
		got := complete(typed)
		for i, l := range lines {
			if len(got) != len(lines) || strings.TrimRight(got[i], " ") != strings.TrimRight(l.typed+l.added, " ") {
				t.Errorf("%s: %q became %q", shell, l.typed, got[min(i, len(got)-1)])
			}
		}
	}
}

func TestCompletionByFish(t *testing.T) {
	t.Parallel()
	p := newPrompt(t)
	p.postern("user", "add", "anna@example.com", "--note", "of sales")
	got := p.fish([]string{"postern queue li", "postern user show ann", "postern user show relay.t"})
	want := []string{"list\tList waiting messages, oldest first", "anna@example.com\tof sales", ""}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Somebody who presses a key for completion makes no store and is shown no error.
func TestCompletionTouchesNothing(t *testing.T) {
	t.Parallel()
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
