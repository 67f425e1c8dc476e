package operate

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Who may what, whole: a new operation has to be entered here by hand.
func TestWhoMay(t *testing.T) {
	need := map[string]struct {
		role  Role
		scope Scope
	}{
		"queue list": {Viewer, ScopeRead}, "trace": {Viewer, ScopeRead}, "user list": {Viewer, ScopeRead},
		"dkim list": {Viewer, ScopeRead}, "alert list": {Viewer, ScopeRead}, "dns list": {Viewer, ScopeRead},
		"dns":         {Helpdesk, ScopeAdmin},
		"doctor last": {Viewer, ScopeRead}, "doctor": {Helpdesk, ScopeAdmin}, "status": {Viewer, ScopeRead},
		"settings":      {Viewer, ScopeRead},
		"queue headers": {Helpdesk, ScopeQueue}, "queue content": {Admin, ""},
		"queue release": {Helpdesk, ScopeQueue}, "queue retry": {Helpdesk, ScopeQueue},
		"queue hold": {Operator, ScopeQueue}, "queue bounce": {Operator, ScopeQueue},
		"queue delete": {Operator, ScopeQueue}, "queue resend": {Operator, ScopeQueue},
		"user add": {Operator, ScopeAccounts}, "user import": {Operator, ScopeAccounts},
		"user set": {Operator, ScopeAccounts}, "user password": {Operator, ScopeAccounts},
		"user lock": {Operator, ScopeAccounts}, "user unlock": {Operator, ScopeAccounts}, "user remove": {Admin, ""},
		"dkim add": {Admin, ScopeAdmin}, "dkim rotate": {Admin, ScopeAdmin}, "dkim retire": {Admin, ScopeAdmin},
		"dkim remove": {Admin, ""}, "dkim check": {Operator, ScopeAdmin},
		"alert test": {Operator, ScopeAdmin}, "trace reindex": {Admin, ScopeAdmin},
		"console list": {Admin, ScopeAdmin}, "console invite": {Admin, ""}, "console reset": {Admin, ""},
		"console role": {Admin, ""}, "console disable": {Admin, ""}, "console remove": {Admin, ""},
		"token list": {Admin, ScopeAdmin}, "token add": {Admin, ""}, "token revoke": {Admin, ScopeAdmin},
		"cert list": {Viewer, ScopeRead}, "cert renew": {Operator, ScopeAdmin}, "cert dns": {Operator, ScopeAdmin},
		"audit":             {Operator, ScopeAdmin},
		"app-password list": {Viewer, ScopeRead}, "app-password add": {Operator, ScopeAccounts},
		"app-password revoke": {Operator, ScopeAccounts}, "app-password forget": {Admin, ScopeAdmin},
		"app-password enrol": {Admin, ScopeAdmin},
		"device learn":       {Admin, ScopeAdmin}, "device accept": {Operator, ScopeAccounts},
		"device forget": {Operator, ScopeAccounts},
		"trace forget":  {Admin, ""}, "stats": {Viewer, ScopeRead},
		"node list": {Viewer, ScopeRead}, "node drain": {Admin, ScopeAdmin}, "node undrain": {Admin, ScopeAdmin},
		"backup": {Admin, ""}, "restore": {Admin, ""},
	}
	for _, op := range All {
		want, known := need[op.Name]
		if !known {
			t.Errorf("nobody wrote down who may %s", op.Name)
			continue
		}
		for role := Nobody; role <= Admin; role++ {
			err := Actor{Name: "x", Channel: Console, Role: role, Strong: true}.May(op)
			if (err == nil) != (role >= want.role) {
				t.Errorf("%s as %s: %v", op.Name, role, err)
			}
		}
		for _, scope := range Scopes {
			err := Actor{Name: "x", Channel: API, Scopes: []Scope{scope}}.May(op)
			may := want.scope != "" && (scope == want.scope || scope == ScopeAdmin || want.scope == ScopeRead)
			if (err == nil) != may {
				t.Errorf("%s with scope %s: %v", op.Name, scope, err)
			}
		}
		err := Actor{Name: "x", Channel: Console, Role: Admin}.May(op)
		if errors.Is(err, ErrStrong) != op.Strong {
			t.Errorf("%s without a second factor: %v", op.Name, err)
		}
		own := strings.HasPrefix(op.Name, "app-password ") && op.Name != "app-password forget"
		err = Actor{Name: "x", Channel: SelfService, Role: Admin, Scopes: Scopes, Strong: true}.May(op)
		if (err == nil) != own {
			t.Errorf("%s by who acts for themself: %v", op.Name, err)
		}
		if err := (Actor{Channel: CommandLine}).May(op); err != nil {
			t.Errorf("%s from the command line: %v", op.Name, err)
		}
	}
	if len(need) != len(All) {
		t.Errorf("%d operations, %d written down", len(All), len(need))
	}
}

// An operation that is declared and not listed would escape every test of rights.
func TestAllOperationsAreListed(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if id, ok := lit.Type.(*ast.Ident); ok && id.Name == "Operation" && len(lit.Elts) > 0 {
				kv := lit.Elts[0].(*ast.KeyValueExpr)
				names = append(names, strings.Trim(kv.Value.(*ast.BasicLit).Value, `"`))
			}
			return true
		})
	}
	for _, name := range names {
		if !slices.ContainsFunc(All, func(op Operation) bool { return op.Name == name }) {
			t.Errorf("%s is not in All", name)
		}
	}
	if len(names) != len(All) {
		t.Errorf("%d are declared, All has %d", len(names), len(All))
	}
}
