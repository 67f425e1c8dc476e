package clientsetup

import (
	"encoding/xml"

	"postern/relay/config"
)

// clientConfig is a document of draft-ietf-mailmaint-autoconfig, as far as it is about mail. Thunderbird reads it, and
// so do K-9 Mail, Evolution, KMail and others.
type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Version  string   `xml:"version,attr"`
	Provider struct {
		ID            string         `xml:"id,attr"`
		Domain        string         `xml:"domain"`
		Name          string         `xml:"displayName"`
		ShortName     string         `xml:"displayShortName"`
		Incoming      configServer   `xml:"incomingServer"`
		Outgoing      []configServer `xml:"outgoingServer"`
		Documentation *configHelp    `xml:"documentation,omitempty"`
	} `xml:"emailProvider"`
}

type configServer struct {
	Type           string `xml:"type,attr"`
	Host           string `xml:"hostname"`
	Port           int    `xml:"port"`
	SocketType     string `xml:"socketType"`
	Authentication string `xml:"authentication"`
	Username       string `xml:"username"`
}

type configHelp struct {
	URL  string     `xml:"url,attr"`
	Text configDesc `xml:"descr"`
}

type configDesc struct {
	Lang string `xml:"lang,attr"`
	Text string `xml:",chardata"`
}

// variables are filled in by the mail program.
var variables = map[string]string{
	config.UserAddress: "%EMAILADDRESS%", config.UserLocalPart: "%EMAILLOCALPART%",
}

// Thunderbird returns the autoconfig document of one of our domains.
func (s *Setup) Thunderbird(domain string) ([]byte, error) {
	if err := s.complete("Thunderbird's autoconfig"); err != nil {
		return nil, err
	}
	doc := clientConfig{Version: "1.1"}
	p := &doc.Provider
	p.ID, p.Domain, p.Name, p.ShortName = domain, domain, s.Name, s.ShortName
	p.Incoming = configured(*s.Incoming)
	for _, o := range s.Outgoing {
		p.Outgoing = append(p.Outgoing, configured(o))
	}
	if s.HelpURL != "" {
		p.Documentation = &configHelp{s.HelpURL, configDesc{"en", "How to set up your mail program"}}
	}
	return marshalXML(doc)
}

func configured(s Server) configServer {
	socket := map[string]string{config.Implicit: "SSL", config.StartTLS: "STARTTLS"}
	c := configServer{Type: s.Protocol, Host: s.Host, Port: s.Port, SocketType: socket[s.TLS],
		Authentication: "password-cleartext", Username: variables[s.Username]}
	if s.OAuth {
		c.Authentication = "OAuth2"
	}
	return c
}

func marshalXML(doc any) ([]byte, error) {
	b, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}
