package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/auth"
	"postern/internal/disk"
	"postern/internal/errno"
	"postern/internal/howto"
	"postern/internal/rights"
	"postern/policy"
	"postern/relay/config"
	"postern/relay/keyring"
	"postern/relay/outbound"
	"postern/relay/sign"
	relaystore "postern/relay/store"
)

// What a configuration meets on this machine: addresses, rights, room, and the accounts and keys of the store.

// checkAddresses says which addresses could not be bound. A running daemon holds its own addresses. A missing right is
// a warning: check may run as another user than serve.
func checkAddresses(c *config.Config) (problems, warnings []config.Problem) {
	serving := relaystore.Serving(relaystore.Of(c))
	try := func(key, address string) {
		err := tryBind(address)
		switch {
		case err == nil:
		case errors.Is(err, errno.AddressInUse) && serving:
		case errors.Is(err, errno.AddressInUse):
			_, port, _ := net.SplitHostPort(address)
			problems = append(problems, c.Problem(key, "%s is in use by another program; "+
				"see which: %s", address, howto.Listens(port)))
		case errors.Is(err, errno.AddressUnavailable):
			problems = append(problems, c.Problem(key, "%s is no address of this machine, which has %s", address,
				strings.Join(ownAddresses(), ", ")))
		case errors.Is(err, errno.Forbidden):
			warnings = append(warnings, c.Problem(key, "%s may not listen on %s: %s", rights.Me(), address,
				WhyForbidden))
		default:
			problems = append(problems, c.Problem(key, "%s", err))
		}
	}
	for i, l := range c.Listeners {
		try(fmt.Sprintf("listener[%d].address", i+1), l.Address)
	}
	for key, address := range httpAddresses(c) {
		try(key, address)
	}
	return problems, warnings
}

// httpAddresses are those where HTTP is spoken, by key.
func httpAddresses(c *config.Config) map[string]string {
	all := map[string]string{"admin.address": c.Admin.Address}
	all["autoconfig.address"], all["autoconfig.http_address"] = c.Autoconfig.Listens()
	maps.DeleteFunc(all, func(_, address string) bool { return address == "" })
	return all
}

// ownAddresses are those that the interfaces of this machine have.
func ownAddresses() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return []string{"some that cannot be read"}
	}
	var own []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own = append(own, n.IP.String())
		}
	}
	return own[:min(len(own), 10)]
}

// checkRoom warns of a disk that has not the room that new mail needs.
func checkRoom(c *config.Config) []config.Problem {
	dir := c.DataDir
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Dir(dir)
	}
	room, err := disk.Of(dir)
	if err != nil {
		return nil
	}
	free := config.Size(room.Free)
	floor := max(c.Store.MinFree, 128<<20)
	switch {
	case c.Store.URL.Server(): // the store takes room at the server, and here only mail on its way
		if free < 128<<20 {
			return []config.Problem{c.Problem("data_dir", "the disk of %s has %s free: mail on its way and answers "+
				"that wait for the database need more", dir, free)}
		}
	case free < floor:
		return []config.Problem{c.Problem("data_dir", "the disk of %s has %s free, less than store.min_free (%s): "+
			"new mail is refused with 452 until there is more",
			dir, free, floor)}
	case c.Store.MaxSize > 0 && free < c.Store.MaxSize/10:
		return []config.Problem{c.Problem("data_dir", "the disk of %s has %s free, and store.max_size lets the queue "+
			"grow to %s", dir, free, c.Store.MaxSize)}
	}
	return nil
}

// leftBehind warns of a store in data_dir that was not moved to the server where relay.toml has the store.
func leftBehind(c *config.Config) []config.Problem {
	o := relaystore.Of(c)
	left, err := relaystore.LeftBehind(o)
	file := filepath.Join(c.DataDir, relaystore.FileName)
	const move = "stop Postern, take the old [store] back into relay.toml, and move it: postern store migrate " +
		"(docs/nodes.md, From SQLite to PostgreSQL); or move the file away where nobody needs it any more"
	switch {
	case err != nil:
		return []config.Problem{c.Problem(storeKey(c), "whether %s has mail or accounts that are not at %s cannot be "+
			"told: %s; if it has, %s", file, o.Place(), err, move)}
	case left:
		return []config.Problem{c.Problem(storeKey(c), "%s has mail or accounts that were not moved to %s and are not "+
			"in use: %s", file, o.Place(), move)}
	}
	return nil
}

// logins are those that the store knows.
type logins struct {
	users  []auth.User
	people []auth.Person // who come by OpenID Connect
}

// checkStored warns of what does not fit between the configuration and the groups and keys of the store, and returns
// the logins.
func checkStored(ctx context.Context, c *config.Config) (all []config.Problem, known logins) {
	s, err := relaystore.OpenThere(ctx, relaystore.Of(c))
	if errors.Is(err, relaystore.ErrOlder) {
		return []config.Problem{c.Problem(storeKey(c), "%s. Its accounts and keys were not looked at", err)}, known
	}
	if s == nil || err != nil {
		return nil, known // Check has said why
	}
	defer s.Close()
	var err2 error
	known.users, err = s.Users(ctx)
	known.people, err2 = s.ProvidedPersons(ctx)
	if err == nil && err2 == nil && len(known.users)+len(known.people) > 0 {
		all = known.unknownGroups(c)
	}
	return slices.Concat(all, weakKeys(ctx, c, s), scramLogins(ctx, c, s), cramDevices(ctx, c, s)), known
}

// unknownGroups names groups that nobody is in. What other sources say of groups is not known before somebody logs in,
// and counts for groups, but never for "@group" among senders.
func (l logins) unknownGroups(c *config.Config) (all []config.Problem) {
	var known []string
	for _, m := range relaystore.Members(l.users, l.people) {
		for _, g := range m.Groups {
			if g = strings.ToLower(g); !slices.Contains(known, g) {
				known = append(known, g)
			}
		}
	}
	slices.Sort(known)
	have := "there are no groups yet"
	if len(known) > 0 {
		have = "there are " + strings.Join(known[:min(len(known), 20)], ", ")
	}
	look := func(key string, groups []string, says func(group string) string) {
		for _, g := range groups {
			if !slices.Contains(known, strings.ToLower(g)) {
				all = append(all, c.Problem(key, "%s", says(g)))
			}
		}
	}
	inStore := func(g string) string {
		return fmt.Sprintf("nobody is in the group %q (%s); put logins into it with: postern user set LOGIN --group %s",
			g, have, g)
	}
	others := otherSources(c)
	if len(others) == 0 && c.SelfService.OIDC == nil {
		for i, p := range c.Policies {
			look(fmt.Sprintf("policy[%d].groups", i+1), p.Groups, inStore)
			look(fmt.Sprintf("policy[%d].senders", i+1), groupsAmong(p.Senders), inStore)
		}
		for i, r := range c.Routes {
			look(fmt.Sprintf("route[%d].groups", i+1), r.Groups, inStore)
		}
		return all
	}
	for i, p := range c.Policies {
		look(fmt.Sprintf("policy[%d].senders", i+1), groupsAmong(p.Senders), func(g string) string {
			return nobodyListed(g, others)
		})
	}
	return all
}

// nobodyListed says that nobody counts for "@group" among senders, where groups come from elsewhere too.
func nobodyListed(group string, others []string) string {
	uncounted := ""
	if len(others) > 0 {
		uncounted = "; those of source " + strings.Join(others, ", ") + " are not counted"
	}
	return fmt.Sprintf("nobody is in the group %q as far as \"@%s\" goes: among senders it means accounts of the "+
		"store, and people who have logged in to the page of [self_service] by OpenID Connect%s; write their "+
		"addresses, or *@domain", group, group, uncounted)
}

// otherSources are the names of the sources beside the store.
func otherSources(c *config.Config) (names []string) {
	for _, s := range c.Auth.Sources {
		if s.Type != config.SourceStore {
			names = append(names, s.Name)
		}
	}
	return names
}

// groupsAmong are the groups that a list of senders names, without the sign.
func groupsAmong(senders []string) []string {
	var groups []string
	for _, s := range senders {
		if g, ok := strings.CutPrefix(s, "@"); ok {
			groups = append(groups, g)
		}
	}
	return groups
}

// SilentLogins are those of accounts that may send as nobody. Groups are those of the accounts and of people.
func SilentLogins(c *config.Config, users []auth.User, people ...auth.Person) (names []string) {
	p, err := policy.New(c.Rules())
	if err != nil {
		return nil
	}
	p.SetGroups(relaystore.Members(users, people))
	for _, u := range users {
		may := false
		for _, l := range c.Listeners {
			e := p.For(policy.Subject{Login: u.Login, Groups: u.Groups, Senders: u.Senders, Listener: l.Name})
			may = may || e.MaySendAnything()
		}
		if !may {
			names = append(names, u.Login)
		}
	}
	return names
}

func silentLogins(c *config.Config, known logins) []config.Problem {
	names := SilentLogins(c, known.users, known.people...)
	if len(names) == 0 {
		return nil
	}
	more := ""
	if len(names) > 10 {
		names, more = names[:10], " and others"
	}
	return []config.Problem{c.Problem("policy", "these logins are no addresses and may send as nothing, so that all "+
		"their mail is refused: %s%s; give them a sender: postern user set LOGIN --sender ADDRESS, or senders in "+
		"[[policy]]", strings.Join(names, ", "), more)}
}

// weakKeys repeats what package sign has to say about keys, and tells of keys that nothing is signed with.
func weakKeys(ctx context.Context, c *config.Config, s *relaystore.Store) []config.Problem {
	rows, err := s.Keys(ctx)
	if err != nil {
		return nil
	}
	var all []config.Problem
	for _, k := range rows {
		if k.Stage == keyring.Retiring {
			continue
		}
		if key, err := outbound.StoredKey(k); err == nil {
			if w, _ := sign.CheckKey(key); w != "" {
				all = append(all, c.Problem("dkim", "%s: %s; replace it: postern dkim rotate %s", k, w, k.Domain))
			}
		}
	}
	if len(rows) > 0 && !c.Signs() {
		all = append(all, c.Problem("dkim", `the key %s signs nothing: dkim is not "sign" at any upstream, `+
			`because the provider signs itself or changes messages`, rows[0]))
	}
	return all
}

// weakFiles is weakKeys for [[dkim]].
func weakFiles(c *config.Config) []config.Problem {
	var all []config.Problem
	for i, d := range c.DKIM {
		if key, err := outbound.ConfiguredKey(d); err == nil {
			if w, _ := sign.CheckKey(key); w != "" {
				all = append(all, c.Problem(fmt.Sprintf("dkim[%d].key_file", i+1), "%s", w))
			}
		}
	}
	return all
}
