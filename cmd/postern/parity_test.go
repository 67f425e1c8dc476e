package main

import (
	"strings"
	"testing"

	"postern/operate"
)

// Whatever a person may do in the console or by the API has a command of its name, or one that stands here.
func TestEveryOperationHasACommand(t *testing.T) {
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
