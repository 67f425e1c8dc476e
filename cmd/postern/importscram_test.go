package main

import (
	"encoding/json"
	"strings"
	"testing"

	"postern/operate"
)

// TestImportSaysScram: where SCRAM is offered, an import says that its passwords have no keys for it yet.
func TestImportSaysScram(t *testing.T) {
	t.Parallel()
	for _, scram := range []bool{false, true} {
		l := newCommandLine(t)
		mechanisms := `["PLAIN", "LOGIN"]`
		if scram {
			mechanisms = `["SCRAM-SHA-256", "PLAIN", "LOGIN"]`
		}
		l.file("relay.toml", "hostname = \"relay.example.com\"\ndata_dir = \"data\"\n[[listener]]\n"+
			"address = \"127.0.0.1:0\"\n[[upstream]]\nname = \"provider\"\nhost = \"smtp.example.net\"\n"+
			"[auth]\nmechanisms = "+mechanisms+"\n")
		_, errs, err := l.runWith("login,senders\ncarl,carl@example.com\n", "user", "import", "-")
		if err != nil || strings.Contains(errs, "SCRAM") != scram {
			t.Errorf("SCRAM %v: %v\n%s", scram, err, errs)
		}
		var done operate.Imported
		out, _, err := l.runWith("login,senders\ndora,dora@example.com\n", "user", "import", "-", "--json")
		if err != nil || json.Unmarshal([]byte(out), &done) != nil || (len(done.Notes) == 1) != scram {
			t.Errorf("SCRAM %v: %v\n%s", scram, err, out)
		}
	}
}
