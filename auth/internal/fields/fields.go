// Package fields reads what sources other than the store say of a login beside its password: lists of groups, senders
// and networks.
//
// Failure semantics: a value that is not understood is an error and never left out: it may be what keeps a login from
// sending, or from coming from elsewhere.
package fields

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postern/mail"
	"postern/policy"
)

// Bounds of a list.
const (
	MaxList = 200 // values
	maxItem = 320 // octets of each
)

// Split reads a list with commas. It must have something in it.
func Split(value string) (list []string, err error) {
	for item := range strings.SplitSeq(value, ",") {
		if item == "" {
			continue
		}
		if list = append(list, item); len(list) > MaxList {
			break
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it is empty, remove it or write values with commas between them")
	}
	return list, nil
}

// Groups checks names of groups.
func Groups(list []string) error {
	return each(list, func(s string) error {
		if s == "" || mail.Printable(s) != s {
			return fmt.Errorf("%s is no name of a group", quoted(s))
		}
		return nil
	})
}

// Senders checks patterns of senders.
func Senders(list []string) error { return each(list, policy.CheckSenderPattern) }

// Networks reads addresses and ranges of them.
func Networks(list []string) (nets []netip.Prefix, err error) {
	err = each(list, func(s string) error {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			nets = append(nets, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
			return nil
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return fmt.Errorf("%s is no network, write one such as 192.0.2.0/24", quoted(s))
		}
		nets = append(nets, p.Masked())
		return nil
	})
	return nets, err
}

func each(list []string, check func(string) error) error {
	if len(list) > MaxList {
		return fmt.Errorf("there are more than %d values", MaxList)
	}
	for _, s := range list {
		if len(s) > maxItem {
			return fmt.Errorf("a value is longer than %d octets", maxItem)
		}
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

func quoted(s string) string { return `"` + mail.Printable(mail.Cut(s, 64)) + `"` }
