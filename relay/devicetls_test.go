package relay

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"postern/internal/testkit"
	"postern/relay/trace"
)

// oldClient runs openssl as a device with old TLS does and returns what it says of the connection.
func (r *rig) oldClient(listener, options string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience/2)
	defer cancel()
	args := append([]string{"s_client", "-starttls", "smtp", "-connect", r.server.Addresses()[listener]},
		strings.Fields(options)...)
	cmd := exec.CommandContext(ctx, testkit.Need(r.t, "openssl"), args...)
	cmd.Env = []string{"OPENSSL_CONF=/dev/null"} // or the machine's own minimum counts
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// TestOldTLSIsKeptToItsListener: with an ECDSA certificate in relay.toml an old device gets an RSA certificate at the
// listener for it, a current client there the other, and nobody gets old TLS at any other listener. Who fails is told
// in the trace what to set.
func TestOldTLSIsKeptToItsListener(t *testing.T) {
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{Names: []string{"relay.example.com"}})
	tls := fmt.Sprintf("[tls]\ncert_file = %q\nkey_file = %q\n", leaf.CertFile, leaf.KeyFile)
	listener := func(name, minVersion string) string {
		return fmt.Sprintf("[[listener]]\nname = %q\naddress = \"127.0.0.1:0\"\ntls = \"auto\"\n"+
			"profile = \"appliance\"\nnetworks = [\"127.0.0.0/8\"]\nmin_version = %q\n", name, minVersion)
	}
	r := newRig(t, newProvider(t), tls+listener("devices", "1.2")+listener("oldest", "1.0"))
	const rsaOnly, oldest = "-tls1_2 -cipher AES128-SHA:@SECLEVEL=0", "-tls1 -cipher AES128-SHA:@SECLEVEL=0"
	for _, c := range []struct{ listener, options, want string }{
		{"devices", rsaOnly, "Cipher is AES128-SHA"},
		{"devices", "-cipher DEFAULT", "Peer signature type: ECDSA"},
		{"devices", oldest, "Cipher is (NONE)"},
		{"oldest", oldest, "Cipher is AES128-SHA"},
		{"oldest", "-tls1_3", "Peer signature type: ECDSA"},
		{"submission", rsaOnly, "Cipher is (NONE)"},
		{"submission", oldest, "Cipher is (NONE)"},
		{"submission", "-tls1_2", "Peer signature type: ECDSA"},
	} {
		if said := r.oldClient(c.listener, c.options); !strings.Contains(said, c.want) {
			t.Errorf("%s at %s: want %q\n%s", c.options, c.listener, c.want, said)
		}
	}
	wants := map[string][]string{
		"devices":    {`this listener wants TLS 1.2 or newer: set its min_version to "1.0"`},
		"submission": {`profile = "appliance"`, `min_version = "1.0"`, "TLS_RSA_WITH_AES_128_CBC_SHA"},
	}
	r.eventually("the failures in the trace", func() bool {
		told := map[string]string{}
		for _, e := range r.events(trace.Refused) {
			told[e.Listener] += e.Detail + "\n"
		}
		for name, texts := range wants {
			for _, text := range texts {
				if !strings.Contains(told[name], text) {
					return false
				}
			}
		}
		return told["oldest"] == ""
	})
}
