package door

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/admin/access"
	"postern/admin/console"
	"postern/operate"
	"postern/relay/store"
)

// tokens are the pages about what programs prove with who they are.
type tokens struct{ tokens access.Tokens }

// tokenRow is a token in the list.
type tokenRow struct {
	Name, Scopes, Networks string
	Expires, Used, Created time.Time
	By                     string
	Expired                bool
}

// tokensView is the body of the list.
type tokensView struct {
	Rows []tokenRow
	Add  bool // the visitor may add some
}

// list shows the tokens.
func (t tokens) list(v *console.Visit) {
	list, err := t.tokens.List(v.Context(), v.Actor())
	if err != nil {
		v.Refuse(err)
		return
	}
	view := tokensView{Add: v.May(operate.AddToken)}
	for _, k := range list {
		row := tokenRow{Name: clean(k.Name), Scopes: strings.Join(k.Scopes, ", "), Expires: k.Expires, Used: k.Used,
			Created: k.Created, By: clean(k.CreatedBy), Expired: !k.Expires.IsZero() && !v.Now.Before(k.Expires)}
		for i, n := range k.Networks {
			if i > 0 {
				row.Networks += ", "
			}
			row.Networks += n.String()
		}
		view.Rows = append(view.Rows, row)
	}
	v.Show(http.StatusOK, "tokens", v.T("API tokens"), view)
}

// lifetimes are for how many days a token may be made; 0 is for ever.
var lifetimes = []int{30, 90, 365, 0}

// newTokenView is the body of the form for a token.
type newTokenView struct {
	Name, Networks, Error string
	Scopes                map[string]bool // those that are chosen
	Days                  int
	Lifetimes             []int
}

// ask shows the form.
func (t tokens) ask(v *console.Visit) {
	t.showAsk(v, http.StatusOK, newTokenView{Scopes: map[string]bool{string(operate.ScopeRead): true}, Days: 365})
}

func (t tokens) showAsk(v *console.Visit, status int, view newTokenView) {
	view.Lifetimes = lifetimes
	v.Show(status, "newtoken", v.T("Add a token"), view)
}

// add makes a token and shows it.
func (t tokens) add(v *console.Visit) {
	view := newTokenView{Name: clean(strings.TrimSpace(v.PostForm.Get("name"))),
		Networks: clean(v.PostForm.Get("networks")), Scopes: map[string]bool{}}
	n := access.NewToken{Name: strings.TrimSpace(v.PostForm.Get("name"))}
	for _, scope := range operate.Scopes {
		if slices.Contains(v.PostForm["scope"], string(scope)) {
			n.Scopes, view.Scopes[string(scope)] = append(n.Scopes, scope), true
		}
	}
	days, err := strconv.Atoi(v.PostForm.Get("days"))
	if err != nil || !slices.Contains(lifetimes, days) {
		days = lifetimes[0]
	}
	if view.Days = days; days > 0 {
		n.Expires = v.Now.AddDate(0, 0, days)
	}
	var token string
	if n.Networks, err = networksOf(view.Networks); err == nil {
		token, err = t.tokens.Add(v.Context(), v.Actor(), n)
	}
	if view.Error = sayToken(v, err); view.Error != "" {
		t.showAsk(v, http.StatusUnprocessableEntity, view)
		return
	}
	if err != nil {
		v.Refuse(err)
		return
	}
	v.Show(http.StatusOK, "once", v.T("The token %s", view.Name), onceView{Title: v.T("The token %s", view.Name),
		Meaning: v.T("Copy it now to where it is needed: it is not shown again."),
		Label:   v.T("Token"), Secret: token, Back: tokensPath,
		Facts: []string{v.T("Programs send it with each request: Authorization: Bearer, followed by the token.")}})
}

// errNetworks: what was typed is no list of networks.
var errNetworks = errors.New("no networks")

// sayToken is what is wrong with the form, "" if it is not the form.
func sayToken(v *console.Visit, err error) string {
	if errors.Is(err, errNetworks) {
		return v.T("Write networks such as 192.0.2.0/24 or single addresses, with a comma between them.")
	}
	return v.Theirs(err)
}

// maxNetworks bounds the networks of a token.
const maxNetworks = 32

// networksOf reads networks and addresses.
func networksOf(text string) (list []netip.Prefix, err error) {
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		network, err := netip.ParsePrefix(field)
		if err != nil {
			addr, err := netip.ParseAddr(field)
			if err != nil || addr.Zone() != "" {
				return nil, errNetworks
			}
			network = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if list = append(list, network.Masked()); len(list) > maxNetworks {
			return nil, errNetworks
		}
	}
	return list, nil
}

// revoke makes a token useless, after a confirmation.
func (t tokens) revoke(v *console.Visit) {
	name := v.PostForm.Get("name")
	if v.PostForm.Get("confirmed") != "yes" {
		list, err := t.tokens.List(v.Context(), v.Actor())
		if err != nil {
			v.Refuse(err)
			return
		}
		if !slices.ContainsFunc(list, func(k store.APIToken) bool { return k.Name == name }) {
			v.Fail(http.StatusNotFound, v.T("There is no token with the name %s.", clean(name)))
			return
		}
		v.Show(http.StatusOK, console.ConfirmSheet, v.T("Revoke"), &console.Confirmation{
			Question: v.T("Revoke the token %s?", clean(name)), Verb: v.T("Revoke"), Danger: true,
			Meaning: v.T("What uses it is refused from now on. This cannot be undone."),
			Action:  tokensPath + "/revoke", Back: tokensPath, Fields: []console.Field{{Name: "name", Value: name}}})
		return
	}
	if err := t.tokens.Revoke(v.Context(), v.Actor(), name); err != nil {
		v.Refuse(err)
		return
	}
	v.Leave("The token %s is revoked.", clean(name))
	v.Go(tokensPath)
}
