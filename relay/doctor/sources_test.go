package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"postern/relay/finding"
)

const bcryptRight = "$2y$05$I1tTl9PUPKtibRbIBZzBSOzj2.tvjQ.NrAPWcHmSQQQBIGeli7Lqm"

func TestSourceFindings(t *testing.T) {
	answer := `{"result": "unknown"}`
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, answer)
	}))
	defer program.Close()
	users := filepath.Join(t.TempDir(), "users")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(users, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(users, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("anna:"+bcryptRight+"\n", 0o600)
	w := newWard(t, plainUpstream+fmt.Sprintf("\n[[auth.source]]\n[[auth.source]]\ntype = \"file\"\npath = %q\n"+
		"[[auth.source]]\ntype = \"http\"\nurl = %q\n[[auth.source]]\ntype = \"ldap\"\nname = \"office\"\n"+
		"urls = [\"ldaps://127.0.0.1:1\"]\nbind_dn = \"cn=x\"\nbind_password = \"x\"\nbase_dn = \"dc=x\"\n"+
		"[[auth.source]]\ntype = \"dovecot\"\nsocket = \"/nonexistent/auth-client\"\n", users, program.URL))
	list := w.examine("sources")
	want(t, list, codeSourceOK, finding.Healthy, "1 login")
	want(t, list, codeSourceOK, finding.Healthy, "It answers.")
	want(t, list, codeSourceDown, finding.Fault, "connection refused", "bind_password", "postern auth test")
	want(t, list, codeSourceDown, finding.Fault, "is Dovecot running", "unix_listener /nonexistent/auth-client")
	want(t, w.examine("accounts"), codeAccountsOK, finding.Healthy, "in other sources")

	answer = `{"result": "ok"}`
	want(t, w.examine("sources"), codeSourceDown, finding.Fault, "every answer is yes")
	write("anna:"+bcryptRight+"\n", 0o620)
	want(t, w.examine("sources"), codeSourceFile, finding.Fault, "can be written by others", "chmod go-w")
	write("anna:hunter2\n", 0o600)
	want(t, w.examine("sources"), codeSourceFile, finding.Fault, users+":1: ", "read again by itself")
}
