package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"postern/operate"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

const golden = "../../docs/openapi.json"

// The description that is kept is the one that is served.
func TestDescriptionIsKept(t *testing.T) {
	spec := newServer(Options{}).spec
	if *update {
		if err := os.WriteFile(golden, spec, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, spec) {
		t.Error("docs/openapi.json is not what the code says: go test ./admin/api -run TestDescriptionIsKept " +
			"-update, and look at the difference")
	}
}

// libopenapi is a second implementation of OpenAPI 3.1.
func secondOpinion(t testing.TB, spec []byte) validator.Validator {
	t.Helper()
	doc, err := libopenapi.NewDocument(spec)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return v
}

func TestDescriptionIsOpenAPI(t *testing.T) {
	spec := newServer(Options{}).spec
	if ok, errs := secondOpinion(t, spec).ValidateDocument(); !ok {
		for _, e := range errs {
			t.Error(e)
			for _, s := range e.SchemaValidationErrors {
				t.Error(" ", s.Reason, s.KeywordLocation)
			}
		}
	}
	broken := bytes.Replace(spec, []byte(`"in": "header"`), []byte(`"in": "heather"`), 1)
	if ok, _ := secondOpinion(t, broken).ValidateDocument(); ok {
		t.Error("a broken description passes too: the check is worth nothing")
	}
}

// description is what the tests look at of OpenAPI.
type description struct {
	OpenAPI    string                          `json:"openapi"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	ID          string                     `json:"operationId"`
	Summary     string                     `json:"summary"`
	Description string                     `json:"description"`
	Security    []map[string][]string      `json:"security"`
	Responses   map[string]json.RawMessage `json:"responses"`
}

// Every operation says what it is, what it needs and how it fails; nothing is described that nobody refers to.
func TestDescriptionIsWhole(t *testing.T) {
	s := newServer(Options{})
	var d description
	if err := json.Unmarshal(s.spec, &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("it is OpenAPI %s", d.OpenAPI)
	}
	seen := map[string]bool{}
	for i := range s.routes {
		r := &s.routes[i]
		op, ok := d.Paths[r.path][strings.ToLower(r.method)]
		if !ok || op.ID != r.id || seen[r.id] || op.Summary == "" {
			t.Errorf("%s %s is described as %q (%t): %q", r.method, r.path, op.ID, ok, op.Summary)
		}
		seen[r.id] = true
		for _, need := range r.needs {
			if word := "scope `" + string(need.Scope) + "`"; !need.Strong && !strings.Contains(op.Description, word) {
				t.Errorf("%s does not name the %s", r.id, word)
			}
			if !strings.Contains(op.Description, "the role "+need.Role.String()) {
				t.Errorf("%s does not name the role %s", r.id, need.Role)
			}
		}
		codes := []string{"401", "403", "422", "500"}
		if r.changes() {
			codes = append(codes, "409")
		}
		for _, code := range codes {
			if _, ok := op.Responses[code]; !ok {
				t.Errorf("%s does not say when it answers %s", r.id, code)
			}
		}
	}
	for name := range d.Components.Schemas {
		if !bytes.Contains(s.spec, []byte(`"$ref": "#/components/schemas/`+name+`"`)) {
			t.Errorf("nothing refers to the schema %s", name)
		}
	}
}

// The actions that the API names are those that there are.
func TestActionsAreAll(t *testing.T) {
	var verbs []string
	for _, a := range operate.Actions {
		verbs = append(verbs, a.Verb)
	}
	if !bytes.Contains(newServer(Options{}).spec, []byte(strings.Join(indented(verbs), ",\n"))) {
		t.Errorf("Action.Action lists other actions than %q", verbs)
	}
}

func indented(words []string) []string {
	words = slices.Clone(words)
	for i, w := range words {
		words[i] = `              "` + w + `"`
	}
	return words
}
