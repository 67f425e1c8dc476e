package clientsetup

import "net/url"

// The paths that mail programs ask for.
const (
	ThunderbirdPath   = "/mail/config-v1.1.xml"
	ThunderbirdPathWK = "/.well-known/autoconfig/mail/config-v1.1.xml"
	OutlookPath       = "/autodiscover/autodiscover.xml" // in any case of letters
	PACCPath          = "/.well-known/user-agent-configuration.json"
	ProfilePath       = "/mail/profile.mobileconfig" // nobody's standard; people open it
)

// AddressParameter is the query parameter of an address.
const AddressParameter = "emailaddress"

// ProfileURL is where a person fetches Apple's profile of an address, "" where mail programs are told nothing.
func (s *Setup) ProfileURL(address string) string {
	if len(s.Domains) == 0 {
		return ""
	}
	u := url.URL{Scheme: s.URL.Scheme, Host: s.URL.Host, Path: ProfilePath,
		RawQuery: url.Values{AddressParameter: {address}}.Encode()}
	return u.String()
}
