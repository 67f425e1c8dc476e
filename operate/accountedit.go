package operate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/auth"
	"postern/mail"
)

// ListEdit is what becomes of one list of an account: another list, more, less, or none. The zero value leaves it.
type ListEdit struct {
	Set    []string `json:"set,omitempty"`    // in place of all it has
	Add    []string `json:"add,omitempty"`    // beside those it has
	Remove []string `json:"remove,omitempty"` //
	Clear  bool     `json:"clear,omitempty"`  // none any more
}

// Asked reports whether anything is to change.
func (e *ListEdit) Asked() bool { return e.Clear || len(e.Set)+len(e.Add)+len(e.Remove) > 0 }

// Check refuses what contradicts itself.
func (e *ListEdit) Check() error {
	switch {
	case e.Clear && len(e.Set)+len(e.Add)+len(e.Remove) > 0:
		return errors.New("to have none stands alone")
	case len(e.Set) > 0 && len(e.Add)+len(e.Remove) > 0:
		return errors.New("the whole list is given: nothing can be added or removed beside it")
	case slices.Contains(slices.Concat(e.Set, e.Add, e.Remove), ""):
		return errors.New("one is empty")
	}
	return nil
}

// edited returns a list as an edit wants it. parse makes values of texts.
func edited[T comparable](e *ListEdit, name string, have []T, parse func([]string) ([]T, error)) ([]T, error) {
	set, err1 := parse(e.Set)
	add, err2 := parse(e.Add)
	removed, err3 := parse(e.Remove)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%s %w", name, err)
	}
	switch {
	case e.Clear:
		return nil, nil
	case len(set) > 0:
		return set, nil
	}
	for _, v := range removed {
		if !slices.Contains(have, v) {
			return nil, fault(Conflict, "it does not have the %s %v; it has %s", name, v, ListText(have))
		}
	}
	left := slices.DeleteFunc(slices.Clone(have), func(v T) bool { return slices.Contains(removed, v) })
	return addOnce(left, add...), nil
}

// ListText names what is in a list of an account.
func ListText[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ", ")
}

// AccountEdit is what is to change of an account. Its password stays.
type AccountEdit struct {
	Senders  ListEdit `json:"senders,omitzero"`
	Networks ListEdit `json:"networks,omitzero"`
	Groups   ListEdit `json:"groups,omitzero"`
	Note     *string  `json:"note,omitempty"` // nil: it stays
}

// Check returns what is wrong with an edit whatever the account has.
func (e *AccountEdit) Check() error {
	for _, l := range []struct {
		name string
		*ListEdit
	}{{"senders", &e.Senders}, {"networks", &e.Networks}, {"groups", &e.Groups}} {
		if err := l.Check(); err != nil {
			return fault(Invalid, "%s: %v", l.name, err)
		}
	}
	// What is removed may be an old pattern that would be refused today.
	_, err1 := checkedSenders(slices.Concat(e.Senders.Set, e.Senders.Add))
	_, err2 := ParseNetworks(slices.Concat(e.Networks.Set, e.Networks.Add, e.Networks.Remove))
	_, err3 := checkedGroups(slices.Concat(e.Groups.Set, e.Groups.Add))
	var err4 error
	if e.Note != nil {
		err4 = checkNote(*e.Note)
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fault(Invalid, "%v", err)
	}
	if !e.Senders.Asked() && !e.Networks.Asked() && !e.Groups.Asked() && e.Note == nil {
		return fault(Invalid, "nothing to change")
	}
	return nil
}

// apply changes an account and returns what is new, in words.
func (e *AccountEdit) apply(u *auth.User, now time.Time) (changes []string, err error) {
	asIs := func(list []string) ([]string, error) { return addOnce(nil, list...), nil } // Check has looked at them
	if u.Senders, err = change(&e.Senders, "sender", u.Senders, asIs, &changes); err != nil {
		return nil, err
	}
	if u.Networks, err = change(&e.Networks, "network", u.Networks, ParseNetworks, &changes); err != nil {
		return nil, err
	}
	if u.Groups, err = change(&e.Groups, "group", u.Groups, asIs, &changes); err != nil {
		return nil, err
	}
	if e.Note != nil && mail.Printable(*e.Note) != u.Note {
		u.Note = mail.Printable(*e.Note)
		shown := u.Note
		if shown == "" {
			shown = "-"
		}
		changes = append(changes, "note: "+shown)
	}
	if len(changes) > 0 {
		u.Edited = now
	}
	return changes, nil
}

func change[T comparable](e *ListEdit, name string, have []T, parse func([]string) ([]T, error), changes *[]string) (
	[]T, error) {
	list, err := edited(e, name, have, parse)
	if err == nil && !slices.Equal(list, have) {
		*changes = append(*changes, name+"s: "+ListText(list))
	}
	return list, err
}
