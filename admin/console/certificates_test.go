package console

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/certs/acme"
	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/config"
)

type acmeRecord = acme.Record

// caState is where the store keeps how attempts at a CA went.
const caState = "postern/state/127.0.0.1:1-dir/relay.example.com"

// failed records that the CA refused us.
func (r *rig) failed(until time.Time) {
	r.t.Helper()
	state, err := json.Marshal(map[string]any{"failures": 3, "attempted": r.now.Add(-time.Hour), "next": until,
		"until": until, "error": "the CA says \"too many certificates (5) already issued <script>\""})
	r.must(err)
	r.must(r.store.ACME().Store(r.t.Context(), caState, state))
}

// TestCertificates: what there is, what went wrong, and the records; a renewal is asked for, or why not.
func TestCertificates(t *testing.T) {
	r := learner(t)
	who := person(operate.Operator)
	if body := r.page("/certificates"); !strings.Contains(body, "not there yet") {
		t.Errorf("%s", body)
	}
	form := url.Values{"name": {"relay.example.com"}}
	question, next := r.confirmedBy(who, "/certificates/act/renew", form)
	if next != "/certificates" || !strings.Contains(question, "five certificates a week") {
		t.Errorf("%s, leads to %s", question, next)
	}
	if body := r.page("/certificates"); !strings.Contains(body, "has not answered yet") {
		t.Errorf("nobody sees that it was asked for: %s", body)
	}
	r.failed(r.now.Add(3 * time.Hour))
	body := r.page("/certificates")
	harmless(t, "certificates", body)
	for _, want := range []string{"could not be obtained yet", "3 failures in a row", "too many certificates",
		"Next try", "in 3 h"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	form.Set("confirmed", "yes")
	body = r.ask(who, "POST", "/certificates/act/renew", form, in("de")).Body.String()
	if !strings.Contains(body, "will vor") || !strings.Contains(body, `role="alert"`) {
		t.Errorf("the CA said wait: %s", body)
	}
	form.Set("name", hostile)
	if w := r.ask(who, "POST", "/certificates/act/renew", form); w.Code != http.StatusNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w := r.ask(who, "POST", "/certificates/act/records", nil)
	for _, want := range []string{"_acme-challenge.relay.example.com", "CNAME", "d420.auth.example.com.", "data-copy"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in %s", want, w.Body)
		}
	}
	if body := r.page2(operate.Viewer, "/certificates"); strings.Contains(body, "/certificates/act/") {
		t.Error("a viewer gets buttons")
	}
	r.config = config.Parse("relay.toml", []byte(strings.Replace(learningOffice,
		"username = \"u\"\npassword = \"p\"\nfull_domain = \"d420.auth.example.com\"\n", "", 1)))
	w = r.ask(who, "POST", "/certificates/act/records", nil, in("de"))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "war nicht zu bekommen") {
		t.Errorf("the server cannot be reached: %d %s", w.Code, w.Body)
	}
}

// TestCertificateDownload: PEM and DER, without the key.
func TestCertificateDownload(t *testing.T) {
	r := newRig(t)
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	r.config = config.Parse("relay.toml", []byte("hostname = \"localhost\"\n[tls]\ncert_file = \""+leaf.CertFile+
		"\"\nkey_file = \""+leaf.KeyFile+"\"\n"))
	body := r.page("/certificates")
	for _, want := range []string{"in order", "days left", "One that everybody trusts"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	data := map[string][]byte{}
	for _, form := range []string{"pem", "der"} {
		at := strings.Index(body, "/"+form+`"`)
		path := body[strings.LastIndex(body[:at], `"`)+1:at] + "/" + form
		w := r.ask(person(operate.Viewer), "GET", path, nil)
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Content-Disposition"), "."+form) {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		data[form] = w.Body.Bytes()
	}
	if block, _ := pem.Decode(data["pem"]); block == nil || bytes.Contains(data["pem"], []byte("PRIVATE")) ||
		!bytes.Equal(block.Bytes, data["der"]) {
		t.Errorf("%s", data["pem"])
	}
	for _, path := range []string{"/certificate/x/pem", "/certificate/" + url.PathEscape(hostile) + "/pem",
		"/certificate/localhost/p12"} {
		w := r.ask(person(operate.Viewer), "GET", path, nil)
		harmless(t, path, w.Body.String())
		if w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
