package console

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/mail"
	"postern/operate"
	"postern/relay/devices"
)

// learningPage lets the devices of a network in without login for a while, and shows which were seen. acceptPage makes
// one of them an account.
var (
	learningPage = page{path: "/learning", title: "Learn devices", under: "/logins", needs: operate.SeeAccounts,
		sheet: "learning", show: func(v *visit) (any, error) { return viewLearning(v, learningForm{}) },
		actions: []action{
			{path: "/learning/act/begin", needs: operate.LearnDevices, do: beginLearning},
			{path: "/learning/act/stop", needs: operate.LearnDevices, do: stopLearning},
		}}
	acceptPage = page{path: "/learning/device", title: "Accept a device", under: "/logins",
		needs: operate.AcceptDevice, sheet: "learnaccept", show: showAccept, actions: []action{
			{path: "/learning/act/accept", needs: operate.AcceptDevice, do: acceptDevice},
			{path: "/learning/act/forget", needs: operate.ForgetDevice, do: forgetDevice, sheet: "learnforget",
				title: "Forget a device"},
		}}
)

// learningView is the body of the page.
type learningView struct {
	Places  []operate.LearningPlace
	Local   bool // no other machine reaches any of them
	Active  []devices.Learning
	Rows    []proposalRow
	Form    learningForm
	Spans   []choice
	Example string // of what is to be put into relay.toml

	MayLearn, MayAccept, MayForget bool
}

// learningForm is what people type to begin.
type learningForm struct {
	Listener, Network string
	Minutes           int
	Problem           string
}

// proposalRow is a device that was seen.
type proposalRow struct {
	operate.Proposal
	Accept string // the page on which it is accepted
	Held   string // the page of what is held
}

// learningSpans are how long devices may be learned, in minutes.
var learningSpans = []int{15, 30, 60, 120}

// exampleListener is what relay.toml needs for devices to be learned.
const exampleListener = `[[listener]]
name = "devices"
address = ":2525"
tls = "auto"
profile = "appliance"
networks = ["10.0.5.0/24"]`

func viewLearning(v *visit, f learningForm) (*learningView, error) {
	d := v.console.Operations.Devices
	view := &learningView{Form: f, Example: exampleListener, MayLearn: v.may(operate.LearnDevices),
		MayAccept: v.may(operate.AcceptDevice), MayForget: v.may(operate.ForgetDevice)}
	var err error
	if view.Places, err = d.Places(v.actor); err != nil {
		return nil, err
	}
	view.Local = len(view.Places) > 0 && !slices.ContainsFunc(view.Places, func(p operate.LearningPlace) bool {
		return !p.Local
	})
	if view.Form.Network == "" {
		view.Form.Network = learnable(view.Places)
	}
	if view.Form.Minutes == 0 {
		view.Form.Minutes = 60
	}
	for _, n := range learningSpans {
		view.Spans = append(view.Spans, choice{strconv.Itoa(n), v.span(time.Duration(n) * time.Minute),
			n == view.Form.Minutes})
	}
	if view.Active, err = d.Learnings(v.Context(), v.actor, v.now); err != nil {
		return nil, err
	}
	proposals, err := d.Proposals(v.Context(), v.actor, v.now)
	for _, p := range proposals {
		view.Rows = append(view.Rows, proposalRow{p, with("/learning/device", url.Values{"address": {p.Address}}),
			with("/held", url.Values{"login": {devices.LearningLogin}})})
	}
	return view, err
}

// learnable is the first network that is narrow enough, "" if none is.
func learnable(places []operate.LearningPlace) string {
	for _, p := range places {
		for _, n := range p.Networks {
			least := devices.WidestNetwork6
			if n.Addr().Is4() {
				least = devices.WidestNetwork4
			}
			if n.Bits() >= least {
				return n.String()
			}
		}
	}
	return ""
}

// Within names the networks in which devices can be learned.
func (l *learningView) Within() string {
	var all []string
	for _, p := range l.Places {
		for _, n := range p.Networks {
			all = append(all, networkText(n))
		}
	}
	return plain(400, strings.Join(all, ", "))
}

func networkText(n netip.Prefix) string { return networkLines([]netip.Prefix{n}) }

func beginLearning(v *visit) (string, any, error) {
	f := learningForm{Listener: plain(maxFilter, v.PostForm.Get("listener")),
		Network: strings.TrimSpace(plain(maxFilter, v.PostForm.Get("network")))}
	f.Minutes, _ = strconv.Atoi(mail.Cut(v.PostForm.Get("minutes"), 10)) // out of range is refused
	l, err := v.console.Operations.Devices.Learn(v.Context(), v.actor, operate.LearnRequest{Listener: f.Listener,
		Network: f.Network, For: time.Duration(f.Minutes) * time.Minute})
	if _, theirs := operate.KindOf(err); theirs {
		f.Problem = plain(1000, err)
		view, showErr := viewLearning(v, f)
		return "", view, showErr
	}
	if err != nil {
		return "", nil, err
	}
	v.leave("Devices of %s may send without logging in for now. Send something from each of them.",
		networkText(l.Network))
	return "/learning", nil, nil
}

func stopLearning(v *visit) (string, any, error) {
	n, err := v.console.Operations.Devices.StopLearning(v.Context(), v.actor,
		mail.Cut(v.PostForm.Get("listener"), maxFilter))
	if err != nil {
		return "", nil, err
	}
	if n == 0 {
		v.leave("No device was being learned any more.")
	} else {
		v.leave("No more devices are learned. What was held waits for you.")
	}
	return "/learning", nil, nil
}

// acceptView is the form of a device that is to become an account.
type acceptView struct {
	operate.Proposal
	Heading string
	Form    loginForm
	Release bool
}

// Title implements titled.
func (a *acceptView) Title() string { return a.Heading }

func viewAccept(v *visit, address string) (*acceptView, error) {
	p, err := v.console.Operations.Devices.Proposal(v.Context(), v.actor, mail.Cut(address, maxFilter), v.now)
	if err != nil {
		return nil, err
	}
	return &acceptView{Proposal: p, Heading: v.t("Accept the device at %s", p.Address), Form: loginForm{
		Login: p.Name(), Senders: plainLines(maxList, strings.Join(p.Senders, "\n"))}}, nil
}

func showAccept(v *visit) (any, error) { return viewAccept(v, v.URL.Query().Get("address")) }

// acceptDevice makes an account and shows its card. What was typed wrong comes back with the reason.
func acceptDevice(v *visit) (string, any, error) {
	f, address := typedLogin(v), mail.Cut(v.PostForm.Get("address"), maxFilter)
	a := operate.Acceptance{Address: address, Name: f.Login, Senders: listed(f.Senders), Groups: listed(f.Groups),
		Note: f.Note, Release: v.PostForm.Get("release") != ""}
	done, err := v.acceptance(a)
	if kind, theirs := operate.KindOf(err); theirs && kind != operate.NotFound {
		view, showErr := viewAccept(v, address)
		if showErr != nil {
			return "", nil, showErr
		}
		f.Problem = plain(1000, err)
		view.Form, view.Release = f, a.Release
		return "", view, nil
	}
	if err != nil {
		return "", nil, err
	}
	u, err := v.console.Operations.Accounts.Get(v.Context(), v.actor, operate.Everybody, done.Login)
	if err != nil {
		return "", nil, err
	}
	c, err := cardOf(v, &u, done.Credential)
	if err != nil {
		return "", nil, err
	}
	c.acceptedAt(&done)
	return "", otherSheet{"card", "Values to type in", c}, nil
}

// acceptance accepts a device; in the console whom it sends as is always said.
func (v *visit) acceptance(a operate.Acceptance) (operate.Accepted, error) {
	if len(a.Senders) == 0 {
		return operate.Accepted{}, &operate.Error{Kind: operate.Invalid,
			Msg: "name an address that the device may send as"}
	}
	return v.console.Operations.Devices.Accept(v.Context(), v.actor, a)
}

// acceptedAt is what is different for a device that needs no login at its address: its server comes first.
func (c *card) acceptedAt(done *operate.Accepted) {
	c.Accepted, c.Back = done, loginPath(done.Login)
	if c.Server == nil || c.Server.devices {
		return
	}
	all := append([]Place{*c.Server}, c.Others...)
	i := slices.IndexFunc(all, func(p Place) bool { return p.devices })
	if i < 0 {
		return
	}
	own := all[i]
	c.Server, c.Others, c.Local = &own, slices.Delete(all, i, i+1), own.local
}

// forgetView is the step before a device is forgotten.
type forgetView struct {
	operate.Proposal
	MayDelete bool
}

func forgetDevice(v *visit) (string, any, error) {
	d, address := v.console.Operations.Devices, mail.Cut(v.PostForm.Get("address"), maxFilter)
	p, err := d.Proposal(v.Context(), v.actor, address, v.now)
	if err != nil {
		return "", nil, err
	}
	if !v.confirmed() {
		return "", &forgetView{p, v.may(operate.DeleteMessages)}, nil
	}
	n, err := d.Forget(v.Context(), v.actor, operate.Forgetting{Address: p.Address,
		Delete: v.PostForm.Get("delete") != ""})
	if err != nil {
		return "", nil, err
	}
	v.console.held.forget()
	if n > 0 {
		v.leave("The device at %s is forgotten, and its held mail is deleted.", p.Address)
	} else {
		v.leave("The device at %s is forgotten.", p.Address)
	}
	return "/learning", nil, nil
}
