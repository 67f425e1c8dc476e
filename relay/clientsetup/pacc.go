package clientsetup

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"postern/relay/config"
)

// paccDocument is a document of draft-ietf-mailmaint-pacc. Its servers have no ports: what is named has TLS from the
// first octet on the port of its protocol.
type paccDocument struct {
	Protocols      map[string]paccServer `json:"protocols"` // sorted when it is encoded
	Authentication struct {
		Password bool `json:"password"`
	} `json:"authentication"`
	Info struct {
		Provider struct {
			Name      string `json:"name"`
			ShortName string `json:"shortName"`
		} `json:"provider"`
		Help *paccHelp `json:"help,omitempty"`
	} `json:"info"`
}

type paccServer struct {
	Host string `json:"host"`
}

type paccHelp struct {
	Documentation string `json:"documentation"`
}

// paccPorts are the only ports that PACC knows.
var paccPorts = map[string]int{config.IMAP: 993, config.POP3: 995, "smtp": 465}

// PACC returns the document of all domains: its octets follow from relay.toml alone, since DNS has their digest. The
// draft's version 03 calls submission "submit", 02 called it "smtp": it has both, and each reader ignores the other.
func (s *Setup) PACC() ([]byte, error) {
	if err := s.byPassword("PACC"); err != nil {
		return nil, err
	}
	out, in := s.Outgoing[0], *s.Incoming
	for _, o := range s.Outgoing {
		if o.TLS == config.Implicit && o.Port == paccPorts[o.Protocol] {
			out = o
		}
	}
	for _, server := range []Server{out, in} {
		if port := paccPorts[server.Protocol]; server.TLS != config.Implicit || server.Port != port {
			return nil, &Unfit{"PACC", fmt.Sprintf("it knows %s on port %d with TLS from the start alone, and here "+
				"there is %s", protocols[server.Protocol], port, ways(server))}
		}
		if server.Username != config.UserAddress {
			return nil, &Unfit{"PACC", "it knows whole addresses as logins alone, and username is \"localpart\""}
		}
	}
	var doc paccDocument
	doc.Protocols = map[string]paccServer{in.Protocol: {in.Host}, "smtp": {out.Host}, "submit": {out.Host}}
	doc.Authentication.Password = true
	doc.Info.Provider.Name, doc.Info.Provider.ShortName = s.Name, s.ShortName
	if s.HelpURL != "" {
		doc.Info.Help = &paccHelp{s.HelpURL}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(doc)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// PACCDigest is the TXT record that vouches for the octets of a document.
func PACCDigest(document []byte) string {
	sum := sha256.Sum256(document)
	return "v=UAAC1; a=sha256; d=" + base64.StdEncoding.EncodeToString(sum[:])
}

// protocols are their names for people.
var protocols = map[string]string{"smtp": "submission", config.IMAP: "IMAP", config.POP3: "POP3"}

// ways says how a server is reached.
func ways(s Server) string {
	use := "TLS from the start"
	if s.TLS == config.StartTLS {
		use = "STARTTLS"
	}
	return fmt.Sprintf("%s on port %d", use, s.Port)
}
