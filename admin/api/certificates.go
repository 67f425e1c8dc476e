package api

import (
	"context"
	"net/http"
	"time"

	"postern/certs/acme"
	"postern/operate"
)

// certificateAPI serves the certificates of the listeners.
type certificateAPI struct{ ops *operate.Operations }

func certificateRoutes(s *server) []route {
	a := certificateAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/certificates", id: "certificates", tag: "Certificates",
			needs: []operate.Operation{operate.SeeCertificates}, faults: []kind{conflict},
			summary: "The certificates of the listeners",
			about:   "With the days that they have left, and what is in the way of new ones by ACME."}, a.list),
		handle(s, route{method: http.MethodPost, path: "/certificates/renew", id: "certificate-renew",
			tag: "Certificates", needs: []operate.Operation{operate.RenewCertificate},
			faults: []kind{notFound, conflict}, summary: "Get new certificates by ACME now",
			about: "It is asked for, and done by the daemon: see attempted of each."}, a.renew),
		handle(s, route{method: http.MethodPost, path: "/certificates/records", id: "certificate-records",
			tag: "Certificates", needs: []operate.Operation{operate.CertificateRecords}, faults: []kind{conflict},
			slow: true, summary: "The DNS records to publish once, for dns-persist-01 and acme-dns",
			about: "An account is registered at the CA, or at the server of acme-dns, where there is none yet."},
			a.records),
		handle(s, route{method: http.MethodGet, path: "/certificates/{which}", id: "certificate-file",
			tag: "Certificates", needs: []operate.Operation{operate.SeeCertificates},
			faults: []kind{notFound, conflict}, summary: "A certificate as a file",
			about: "For devices that have to be told to trust it. It holds no key."}, a.file),
	}
}

// Certificates are the certificates of the listeners.
type Certificates struct {
	Certificates []ListenerCertificate `json:"certificates"`
}

// ListenerCertificate is one of them.
type ListenerCertificate operate.Certificate

func (a certificateAPI) list(ctx context.Context, by operate.Actor, _ *none) (*shown[Certificates], error) {
	all, err := a.ops.Certificates.List(ctx, by)
	if err != nil {
		return nil, err
	}
	out := Certificates{make([]ListenerCertificate, len(all))}
	for i, c := range all {
		out.Certificates[i] = ListenerCertificate(c)
	}
	return &shown[Certificates]{out}, nil
}

type renewal struct {
	Body struct {
		Name string `json:"name,omitempty" maxLength:"255" doc:"Of those in [tls.acme]; without it, all."`
	}
}

// Renewal is what was asked for.
type Renewal struct {
	Names []string  `json:"names"`
	Asked time.Time `json:"asked"`
}

func (a certificateAPI) renew(ctx context.Context, by operate.Actor, in *renewal) (*shown[Renewal], error) {
	names, asked, err := a.ops.Certificates.Renew(ctx, by, in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &shown[Renewal]{Renewal{names, asked}}, nil
}

// CertificateRecords are records that a person publishes.
type CertificateRecords struct {
	Records []CertificateRecord `json:"records"`
}

// CertificateRecord is one of them.
type CertificateRecord acme.Record

func (a certificateAPI) records(ctx context.Context, by operate.Actor, _ *asking) (*shown[CertificateRecords], error) {
	records, err := a.ops.Certificates.Records(ctx, by)
	if err != nil {
		return nil, err
	}
	out := CertificateRecords{make([]CertificateRecord, len(records))}
	for i, r := range records {
		out.Records[i] = CertificateRecord(r)
	}
	return &shown[CertificateRecords]{out}, nil
}

type whichCertificate struct {
	Which string `path:"which" maxLength:"255" doc:"A name that it covers, or its SHA-256 in hexadecimal digits."`
}

// CertificateFile is the public part of a certificate.
type CertificateFile struct {
	PEM string `json:"pem" doc:"With those of its authorities."`
	DER []byte `json:"der" doc:"The topmost of these alone, which a device is told to trust; in base64."`
}

func (a certificateAPI) file(ctx context.Context, by operate.Actor, in *whichCertificate) (*shown[CertificateFile],
	error) {
	text, err := a.ops.Certificates.File(ctx, by, in.Which, operate.PEM)
	if err != nil {
		return nil, err
	}
	one, err := a.ops.Certificates.File(ctx, by, in.Which, operate.DER)
	if err != nil {
		return nil, err
	}
	return &shown[CertificateFile]{CertificateFile{string(text.Data), one.Data}}, nil
}
