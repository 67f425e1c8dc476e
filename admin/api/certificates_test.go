package api

import (
	"net/http"
	"testing"
	"time"
)

func TestCertificates(t *testing.T) {
	r := newRig(t)
	var list Certificates
	r.get("/certificates", &list)
	if len(list.Certificates) != 2 || list.Certificates[0].Name != "relay.example.com" || // RSA too, for old devices
		!list.Certificates[0].Ends.IsZero() {
		t.Errorf("%+v", list)
	}
	var asked Renewal
	r.post("/certificates/renew", `{"name":"Relay.example.com"}`, http.StatusOK, &asked)
	if len(asked.Names) != 1 || time.Since(asked.Asked) > time.Hour {
		t.Errorf("%+v", asked)
	}
	if r.get("/certificates", &list); !list.Certificates[0].Asked.Equal(asked.Asked) {
		t.Errorf("%+v", list)
	}
	r.post("/certificates/renew", `{"name":"mail.example.com"}`, http.StatusNotFound, nil)
	var records CertificateRecords
	r.post("/certificates/records", `{}`, http.StatusOK, &records)
	want := CertificateRecord{Name: "_acme-challenge.relay.example.com", Type: "CNAME", Value: "d420.auth.example.com."}
	if len(records.Records) != 1 || records.Records[0] != want {
		t.Errorf("%+v", records)
	}
}
