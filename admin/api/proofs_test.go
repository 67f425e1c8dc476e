package api

import (
	"encoding/pem"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/operate"
	"postern/relay/config"
	"postern/relay/devices"
	"postern/relay/trace"
)

// TestProofs: a key is pinned, seen and removed, of a login and of a device.
func TestProofs(t *testing.T) {
	r := newRig(t)
	r.account("carl", false)
	r.account("printer", true)
	for _, path := range []string{"/logins/carl", "/devices/printer"} {
		key := map[string]string{"/logins/carl": someKey, "/devices/printer": otherKey}[path]
		var pinned operate.Pinned
		r.post(path+"/certificates", `{"key":"`+strings.ToUpper(key)+`"}`, http.StatusCreated, &pinned)
		if pinned.Key != key {
			t.Errorf("%+v", pinned)
		}
		var v operate.Detailed
		if r.get(path+"/mechanisms", &v); len(v.Certificates) != 1 || v.Certificates[0].Key != key ||
			len(v.Mechanisms) == 0 {
			t.Errorf("%+v", v)
		}
		r.post(path+"/certificates", `{"key":"hello"}`, http.StatusUnprocessableEntity, nil)
		got := r.do(admin, request(http.MethodDelete, path+"/certificates/"+key, ""))
		if again := r.do(admin, request(http.MethodDelete, path+"/certificates/"+key, "")); got.StatusCode !=
			http.StatusNoContent || again.StatusCode != http.StatusNotFound {
			t.Errorf("%d, then %d %s", got.StatusCode, again.StatusCode, again.body)
		}
	}
	r.post("/devices/carl/certificates", `{"key":"`+someKey+`"}`, http.StatusConflict, nil)
	var card ClientCard
	if r.get("/logins/carl/client", &card); card.Login != "carl" || len(card.Notes) == 0 {
		t.Errorf("%+v", card)
	}
}

// TestCertificateFileOfTheAPI: both forms.
func TestCertificateFileOfTheAPI(t *testing.T) {
	r := newRig(t)
	leaf := testkit.NewCA(t).Leaf(testkit.LeafOptions{})
	c := config.Parse("relay.toml", []byte("[tls]\ncert_file = \""+leaf.CertFile+
		"\"\nkey_file = \""+leaf.KeyFile+"\"\n"))
	r.api.Operations = operate.New(operate.Options{Config: func() *config.Config { return c }, Store: r.store})
	f, err := certificateAPI{r.api.Operations}.file(t.Context(), admin, &whichCertificate{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode([]byte(f.Body.PEM))
	if block == nil || string(block.Bytes) != string(f.Body.DER) || len(rest) > 0 {
		t.Errorf("%+v", f)
	}
}

// TestForgetByTheAPI: what was seen while learning is proposed no more.
func TestForgetByTheAPI(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.happened(trace.Event{Time: now, Kind: trace.Accepted, Login: devices.LearningLogin, Listener: "devices",
		Client: "10.0.5.77", From: "copier@example.com", ID: "L1"})
	if err := r.store.Learn(t.Context(), devices.Learning{Listener: "devices", By: "anna", Began: now.Add(-time.Hour),
		Network: netip.MustParsePrefix("10.0.5.0/24"), Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var seen Learned
	if r.get("/learning", &seen); len(seen.Proposals) != 1 || len(seen.Learning) != 1 {
		t.Fatalf("%+v", seen)
	}
	got := r.do(admin, request(http.MethodDelete, "/learning/10.0.5.77?delete=true", ""))
	if got.StatusCode != http.StatusOK || !strings.Contains(string(got.body), `"deleted":0`) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if r.get("/learning", &seen); len(seen.Proposals) != 0 {
		t.Errorf("%+v", seen)
	}
}

// TestImportByTheAPI: the answer says what the passwords cannot be used with yet.
func TestImportByTheAPI(t *testing.T) {
	r := newRig(t)
	for mechanisms, want := range map[string]int{`"PLAIN"`: 0, `"PLAIN", "SCRAM-SHA-256"`: 1, `"PLAIN", "CRAM-MD5"`: 1,
		`"SCRAM-SHA-256", "PLAIN", "CRAM-MD5"`: 2} {
		c := config.Parse("relay.toml", []byte("[[listener]]\naddress = \":587\"\n[auth]\nmechanisms = ["+mechanisms+
			"]\n"))
		i := importAPI{operate.New(operate.Options{Config: func() *config.Config { return c }, Store: r.store})}
		done, err := i.take(t.Context(), admin, &table{Update: true, Silent: true,
			RawBody: []byte("login,kind,password\nx,user,correct horse\ny" + strconv.Itoa(want+len(mechanisms)) +
				",device,\n")})
		if err != nil || len(done.Body.Notes) != want {
			t.Errorf("%s: %+v, %v", mechanisms, done, err)
		}
	}
}
