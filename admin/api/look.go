package api

import (
	"context"
	"net/http"
	"slices"

	"postern/operate"
	"postern/relay/dnscheck"
	"postern/relay/doctor"
	"postern/relay/finding"
	"postern/relay/sign"
)

// lookAPI serves what is looked at in the world: everything by the doctor, DNS by domain, the records of keys.
type lookAPI struct{ ops *operate.Operations }

func (s *server) lookRoutes() []route {
	a := lookAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodGet, path: "/doctor", id: "doctor-last", tag: "Doctor",
			needs: []operate.Operation{operate.SeeDoctor}, faults: []kind{notFound},
			summary: "The last examination of this process"}, a.last),
		handle(s, route{method: http.MethodPost, path: "/doctor", id: "doctor", tag: "Doctor", slow: true,
			needs: []operate.Operation{operate.Examine}, faults: []kind{conflict},
			summary: "Examine everything now",
			about:   "It logs in at every upstream and asks DNS, which may take minutes."}, a.examine),
		handle(s, route{method: http.MethodGet, path: "/dns", id: "dns", tag: "Domains",
			needs:   []operate.Operation{operate.SeeDomains},
			summary: "The domains that mail is sent from, with the last look at their DNS"}, a.domains),
		handle(s, route{method: http.MethodPost, path: "/dns/{domain}", id: "dns-look", tag: "Domains", slow: true,
			needs:   []operate.Operation{operate.LookAtDomain},
			summary: "Look at the DNS of a domain now",
			about:   "Whether its mail passes at receivers, what is wrong, and the records to publish."}, a.look),
	}
}

// asking is a request that has nothing to say but that it is one: its body is {}.
type asking struct{ Body struct{} }

// Examination is what the doctor found.
type Examination doctor.Report

func (a lookAPI) last(_ context.Context, by operate.Actor, _ *none) (*shown[Examination], error) {
	r, err := a.ops.Doctor.Last(by)
	if err == nil && r == nil {
		err = notFound.problem("Nobody has examined anything since the start: POST here.")
	}
	if err != nil {
		return nil, err
	}
	return &shown[Examination]{Examination(*r)}, nil
}

func (a lookAPI) examine(ctx context.Context, by operate.Actor, _ *asking) (*shown[Examination], error) {
	r, err := a.ops.Doctor.Examine(ctx, by)
	if err != nil {
		return nil, err
	}
	return &shown[Examination]{Examination(*r)}, nil
}

// DomainStates are the domains that mail is sent from.
type DomainStates struct {
	Domains []DomainState `json:"domains"`
}

// DomainState is one, with the last look at it.
type DomainState struct {
	Domain string        `json:"domain"`
	Report *DomainReport `json:"report,omitempty" doc:"Without it, nobody has looked since the start."`
}

// DomainReport is what a look at DNS found.
type DomainReport dnscheck.Report

func (a lookAPI) domains(ctx context.Context, by operate.Actor, _ *none) (*shown[DomainStates], error) {
	list, err := a.ops.Domains.List(ctx, by)
	if err != nil {
		return nil, err
	}
	out := DomainStates{make([]DomainState, len(list))}
	for i, d := range list {
		out.Domains[i].Domain = d.Domain
		if d.Report != nil {
			r := withLists(*d.Report)
			out.Domains[i].Report = &r
		}
	}
	return &shown[DomainStates]{out}, nil
}

// withLists is a report whose lists are never null.
func withLists(r dnscheck.Report) DomainReport {
	r.Outcomes, r.Records = append([]dnscheck.Outcome{}, r.Outcomes...), append([]dnscheck.Record{}, r.Records...)
	r.Findings = append([]finding.Finding{}, r.Findings...)
	return DomainReport(r)
}

type askOfDomain struct {
	OfDomain
	Body struct{}
}

func (a lookAPI) look(ctx context.Context, by operate.Actor, in *askOfDomain) (*shown[DomainReport], error) {
	r, _, err := a.ops.Domains.Look(ctx, by, in.Domain, operate.LookOptions{})
	if err != nil {
		return nil, err
	}
	return &shown[DomainReport]{withLists(r)}, nil
}

func keyRoutes(s *server) []route {
	a := lookAPI{s.Operations}
	return []route{
		handle(s, route{method: http.MethodPost, path: "/domains/{domain}/rotate", id: "domain-rotate", tag: "Domains",
			needs: []operate.Operation{operate.RotateKeys}, faults: []kind{notFound, conflict},
			status: http.StatusCreated, summary: "Make new keys that will take the place of those that sign",
			about: "The old ones sign until the records of all new ones are seen in DNS."}, a.rotate),
		handle(s, route{method: http.MethodPost, path: "/domains/{domain}/check", id: "domain-check", tag: "Domains",
			needs: []operate.Operation{operate.CheckKeys}, faults: []kind{conflict}, slow: true,
			summary: "Look for the records of a domain's keys now",
			about:   "Keys move to the stages that are due."}, a.check),
		handle(s, route{method: http.MethodPost, path: "/domains/{domain}/keys/{selector}/retire", id: "key-retire",
			tag: "Domains", needs: []operate.Operation{operate.RetireKey}, faults: []kind{notFound, conflict},
			status: http.StatusNoContent, summary: "Sign with a key no more"}, a.retire),
		handle(s, route{method: http.MethodDelete, path: "/domains/{domain}/keys/{selector}", id: "key-remove",
			tag: "Domains", needs: []operate.Operation{operate.RemoveKey}, faults: []kind{notFound, conflict},
			status: http.StatusNoContent, summary: "Delete a private key for good"}, a.remove),
	}
}

type rotation struct {
	OfDomain
	Body struct {
		Algorithms []string `json:"algorithms,omitempty" enum:"rsa-2048,ed25519" maxItems:"2" doc:"Without it, both."`
	}
}

// OfDomain names a domain.
type OfDomain struct {
	Domain string `path:"domain" maxLength:"255"`
}

func (a lookAPI) rotate(ctx context.Context, by operate.Actor, in *rotation) (*shown[Keys], error) {
	algorithms := in.Body.Algorithms
	if len(algorithms) == 0 {
		algorithms = []string{sign.RSA2048, sign.Ed25519}
	}
	made, err := a.ops.Keys.Rotate(ctx, by, in.Domain, algorithms)
	if err != nil {
		return nil, err
	}
	return &shown[Keys]{Keys{Keys: operate.ShownKeys(made)}}, nil
}

func (a lookAPI) check(ctx context.Context, by operate.Actor, in *askOfDomain) (*shown[Keys], error) {
	keys, err := a.ops.Keys.Check(ctx, by, in.Domain)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(k operate.Key) bool { return k.Domain != in.Domain })
	return &shown[Keys]{Keys{Keys: operate.ShownKeys(keys)}}, nil
}

// OfKey names a key.
type OfKey struct {
	OfDomain
	Selector string `path:"selector" maxLength:"63"`
	Force    bool   `query:"force" doc:"Though mail will go without a signature, or cannot be verified any more."`
}

type askOfKey struct {
	OfKey
	Body struct{}
}

func (a lookAPI) retire(ctx context.Context, by operate.Actor, in *askOfKey) (*struct{}, error) {
	return nil, a.ops.Keys.Retire(ctx, by, in.Domain, in.Selector, in.Force)
}

func (a lookAPI) remove(ctx context.Context, by operate.Actor, in *OfKey) (*struct{}, error) {
	return nil, a.ops.Keys.Remove(ctx, by, in.Domain, in.Selector, in.Force)
}
