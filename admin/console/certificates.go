package console

import (
	"cmp"
	"slices"
	"strings"

	"postern/certs/acme"
	"postern/mail"
	"postern/operate"
)

// certificatesPage shows the certificates of the listeners; certificateData hands them out without their keys.
var (
	certificatesPage = page{path: "/certificates", title: "Certificates", menu: true,
		needs: operate.SeeCertificates, sheet: "certificates", show: func(v *visit) (any, error) {
			return viewCertificates(v)
		}, actions: []action{
			{path: "/certificates/act/renew", needs: operate.RenewCertificate, do: renewCertificate, sheet: "confirm",
				title: "Certificates"},
			{path: "/certificates/act/records", needs: operate.CertificateRecords, do: certificateRecords},
		}}
	certificateData = page{path: "/certificate/{which}/{form}", title: "Certificate", under: "/certificates",
		needs: operate.SeeCertificates, sheet: "certificates", show: func(v *visit) (any, error) {
			form := operate.Form(mail.Cut(v.PathValue("form"), maxFilter))
			f, err := v.console.Operations.Certificates.File(v.Context(), v.actor,
				mail.Cut(v.PathValue("which"), maxFilter), form)
			if err != nil {
				return nil, err
			}
			return attachment{f.Name, certificateTypes[form], f.Data}, nil
		}}
)

// certificateTypes are the media types of the forms.
var certificateTypes = map[operate.Form]string{operate.PEM: "application/x-pem-file",
	operate.DER: "application/pkix-cert"}

// certificatesView is the body of the page.
type certificatesView struct {
	Rows     []certificateRow
	Records  []acme.Record
	Problem  string
	Waits    bool // a CA was asked, and has not answered
	ACME     bool
	Files    bool // there are some to download
	MayRenew bool
	MayAsk   bool // for the records to publish
}

// certificateRow is one certificate, in words.
type certificateRow struct {
	operate.Certificate
	Title      string
	Icon, Word string
	From       string
	Trouble    Said   // of the last attempt; without text where it went well
	Notes      []Said // what is allowed but unwise
	Which      string // its fingerprint, for paths
	Waits      bool   // it was asked for, and not tried since
	MayRenew   bool
}

// Days bound when the end of a certificate is near.
const (
	daysSoon = 30
	daysBad  = 7
)

func viewCertificates(v *visit) (*certificatesView, error) {
	c := v.console.Operations.Certificates
	all, err := c.List(v.Context(), v.actor)
	if err != nil {
		return nil, err
	}
	view := &certificatesView{MayRenew: v.may(operate.RenewCertificate)}
	seen := map[string]bool{}
	for _, one := range all {
		row := certificateRowOf(v, one)
		row.MayRenew = view.MayRenew && one.Source == operate.FromACME && !seen[one.Name]
		seen[one.Name] = true
		view.Waits, view.ACME = view.Waits || row.Waits, view.ACME || one.Source == operate.FromACME
		view.Rows, view.Files = append(view.Rows, row), view.Files || row.Which != ""
	}
	view.MayAsk = v.may(operate.CertificateRecords) && c.NeedsRecords()
	return view, nil
}

func certificateRowOf(v *visit, c operate.Certificate) certificateRow {
	first := strings.Join(c.Names[:min(len(c.Names), 1)], "")
	row := certificateRow{Certificate: c, Title: plain(255, cmp.Or(c.Name, first, v.t("Certificate"))),
		Which: strings.ReplaceAll(c.Fingerprint, ":", ""), Waits: c.Asked.After(c.Attempted)}
	row.Icon, row.Word = certificateState(v, &c)
	row.From = map[operate.Source]string{operate.FromACME: v.t("a certificate authority, by itself (ACME)"),
		operate.FromFile:   v.t("a file that was put there"),
		operate.SelfSigned: v.t("made by us (self-signed)")}[c.Source]
	if c.Failures > 0 {
		row.Trouble = v.said(plainLines(maxSaid, c.Error))
		row.Trouble.Text = capital(row.Trouble.Text)
	}
	for _, w := range c.Warnings {
		row.Notes = append(row.Notes, v.said(plainLines(maxSaid, w)))
	}
	return row
}

// certificateState says how a certificate stands.
func certificateState(v *visit, c *operate.Certificate) (icon, word string) {
	switch {
	case c.Missing() && c.Failures > 0:
		return "bad", v.t("could not be obtained yet")
	case c.Missing():
		return "wait", v.t("not there yet")
	case c.Ends.Before(v.now):
		return "bad", v.t("has ended")
	case c.DaysLeft < daysBad:
		return "bad", v.t("ends soon")
	case c.Failures > 0:
		return "warn", v.t("renewal fails")
	case c.Source == operate.SelfSigned:
		return "warn", v.t("self-signed: devices have to be told to trust it")
	case c.DaysLeft < daysSoon && c.Source == operate.FromFile:
		return "warn", v.t("ends soon")
	case len(c.Warnings) > 0:
		return "warn", v.t("not quite right")
	}
	return "ok", v.t("in order")
}

// renewCertificate asks the CA for a new one. What is in the way stands above the page.
func renewCertificate(v *visit) (string, any, error) {
	c, name := v.console.Operations.Certificates, mail.Cut(v.PostForm.Get("name"), maxFilter)
	if !v.confirmed() {
		return "", &confirmation{Question: v.t("Get a new certificate for %s now?", plain(120, name)),
			Meaning: v.t("Certificates are renewed by themselves: this is for when something was mended.") + " " +
				v.t("Public authorities give a name five certificates a week."), Verb: v.t("Renew now"),
			Action: "/certificates/act/renew", Back: "/certificates", Fields: []field{{"name", name}}}, nil
	}
	names, _, err := c.Renew(v.Context(), v.actor, name)
	if kind, theirs := operate.KindOf(err); theirs && kind != operate.NotFound {
		return v.certificateProblem(err)
	}
	switch {
	case err != nil:
		return "", nil, err
	case c.Running():
		v.leave("The authority is being asked for %s. The outcome stands here in a minute.", strings.Join(names, ", "))
	default:
		v.leave("Postern does not run: the authority is asked for %s when it is started.", strings.Join(names, ", "))
	}
	return "/certificates", nil, nil
}

// certificateProblem is the page with what is in the way.
func (v *visit) certificateProblem(err error) (string, any, error) {
	view, showErr := viewCertificates(v)
	if showErr != nil {
		return "", nil, showErr
	}
	view.Problem = plain(1000, err)
	return "", otherSheet{"certificates", "Certificates", view}, nil
}

// certificateRecords shows the DNS records to publish. An account is made at the CA where there is none.
func certificateRecords(v *visit) (string, any, error) {
	bePatient(v, longestAction)
	records, err := v.console.Operations.Certificates.Records(v.Context(), v.actor)
	if kind, theirs := operate.KindOf(err); theirs && kind != operate.NotFound {
		return v.certificateProblem(err)
	}
	if err != nil {
		return "", nil, err
	}
	view, err := viewCertificates(v)
	if err != nil {
		return "", nil, err
	}
	view.Records, view.MayAsk = slices.Clone(records), false
	return "", view, nil
}
