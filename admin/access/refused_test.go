package access

import (
	"testing"

	"postern/operate"
	"postern/relay/store"
)

// TestLateLinkTakesNoAccount: a link that was made while its user accepted an earlier one must not set the password
// anew.
func TestLateLinkTakesNoAccount(t *testing.T) {
	r := newRig(t)
	secret, _ := r.join("anna", operate.Admin)
	link, err := r.Users.newLink(t.Context(), "anna", operate.Admin)
	if err != nil {
		t.Fatal(err)
	}
	token := r.tokenOf(link)
	i, err := r.Invitations.Get(t.Context(), token)
	if err == nil {
		_, err = r.Invitations.Accept(t.Context(), token, Acceptance{Password: "another long password",
			Code: r.code(i.Secret)}, client)
	}
	if ReasonOf(err) != ReasonLinkUsed {
		t.Errorf("the late link: %v", err)
	}
	if _, err := r.login("anna", secret); err != nil {
		t.Errorf("anna's own password: %v", err)
	}
}

// TestRefusalsDoNotFillTheAudit: whoever may not, and asks again and again, pushes nothing out.
func TestRefusalsDoNotFillTheAudit(t *testing.T) {
	r := newRig(t)
	who := operate.Actor{Name: "eve", Channel: operate.Console, Role: operate.Viewer}
	for range 20 {
		_ = r.Users.Remove(t.Context(), who, "anna") // refused
	}
	entries, err := r.store.Audit(t.Context(), store.AuditQuery{Actor: "eve"})
	if err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
