package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"postern/operate"
)

// Whatever a person may do in the console or by the API has a command of its name, or one that stands here.
func TestEveryOperationHasACommand(t *testing.T) {
	t.Parallel()
	elsewhere := map[string]string{
		"queue headers": "queue show --headers", "queue content": "queue show --content",
		"dns list":     "dns",
		"doctor last":  "doctor", // whose every run shows the whole
		"node undrain": "node drain --undo",
	}
	byThemselves := operate.EnrolPerson // of the page for people, by logging in to it
	for _, op := range operate.All {
		if op == byThemselves {
			continue
		}
		line := op.Name
		if other := elsewhere[op.Name]; other != "" {
			line = other
		}
		words := strings.Fields(line)
		flag := ""
		if last := words[len(words)-1]; strings.HasPrefix(last, "--") {
			flag, words = last[2:], words[:len(words)-1]
		}
		cmd, rest, err := rootCommand().Find(words)
		if err != nil || len(rest) > 0 || !cmd.Runnable() || flag != "" && cmd.Flags().Lookup(flag) == nil {
			t.Errorf("there is no command for %q: postern %s", op.Name, line)
		}
	}
}

// What the alerts for Prometheus and the dashboard tell people to type are commands, with flags that these have.
func TestAlertsNameCommands(t *testing.T) {
	t.Parallel()
	seen, told := 0, regexp.MustCompile(`"postern ([^"\\]+)`)
	for _, file := range []string{"prometheus/rules.yaml", "grafana/postern.json"} {
		text, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range told.FindAllStringSubmatch(plainWords(string(text)), -1) {
			words := strings.Fields(line[1])
			cmd, rest, err := rootCommand().Find(words)
			another := len(rest) > 0 && cmd.HasSubCommands() && !strings.HasPrefix(rest[0], "-")
			if err != nil || cmd == cmd.Root() || another {
				t.Errorf("%s: there is no command postern %s", file, line[1])
				continue
			}
			for _, word := range rest {
				if name, is := strings.CutPrefix(word, "--"); is && cmd.Flags().Lookup(name) == nil {
					t.Errorf("%s: postern %s has no flag %s", file, line[1], word)
				}
			}
			seen++
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands", seen)
	}
}
