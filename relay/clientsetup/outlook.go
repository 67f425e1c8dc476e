package clientsetup

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"postern/mail"
	"postern/relay/config"
)

// outlookResponse is the schema of answers for mailboxes outside Exchange (MS-OXDSCLI §2.2).
const outlookResponse = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"

// Bounds of a request, in octets, levels and tokens. Outlook's own has 350 octets, 3 levels and 15 tokens.
const (
	MaxOutlookRequest = 8 << 10
	maxDepth          = 8
	maxTokens         = 200
	maxValue          = 1024
)

// OutlookRequest is what Outlook asks.
type OutlookRequest struct {
	Address string // as it was typed
	Schema  string // of the answer that it understands
}

// Outlook reports whether the answer may be ours. ActiveSync, which the same address is asked for, is not.
func (r OutlookRequest) Outlook() bool { return r.Schema == "" || r.Schema == outlookResponse }

var errRequest = errors.New("it is no autodiscover request")

// ParseOutlook reads a request. It takes no document types, other encodings than UTF-8, nor elements in a depth or
// number that no mail program sends.
func ParseOutlook(body []byte) (r OutlookRequest, err error) {
	if len(body) > MaxOutlookRequest {
		return r, fmt.Errorf("it has more than %d octets", MaxOutlookRequest)
	}
	d := xml.NewDecoder(bytes.NewReader(body))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errRequest }
	var path []string
	for range maxTokens {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return r, r.check()
		}
		if err != nil {
			return r, errRequest
		}
		switch t := token.(type) {
		case xml.Directive:
			return r, errRequest
		case xml.StartElement:
			if path = append(path, t.Name.Local); len(path) > maxDepth {
				return r, errRequest
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if err := r.take(strings.Join(path, "/"), strings.TrimSpace(string(t))); err != nil {
				return r, err
			}
		}
	}
	return r, errRequest
}

// take keeps a text that counts; of several the first.
func (r *OutlookRequest) take(path, text string) error {
	if len(text) > maxValue {
		return errRequest
	}
	switch {
	case path == "Autodiscover/Request/EMailAddress" && r.Address == "":
		r.Address = text
	case path == "Autodiscover/Request/AcceptableResponseSchema" && r.Schema == "":
		r.Schema = text
	}
	return nil
}

func (r *OutlookRequest) check() error {
	if r.Address == "" {
		return errRequest
	}
	return nil
}

// autodiscoverAnswer is an answer with settings.
type autodiscoverAnswer struct {
	XMLName  xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
	Response struct {
		Space    string            `xml:"xmlns,attr"`
		Type     string            `xml:"Account>AccountType"`
		Action   string            `xml:"Account>Action"`
		Protocol []outlookProtocol `xml:"Account>Protocol"`
	} `xml:"Response"`
}

// outlookProtocol is a server. SPA is on where it is not said, and so is SSL.
type outlookProtocol struct {
	Type           string
	Server         string
	Port           int
	DomainRequired string
	LoginName      string
	SPA            string
	SSL            string
	Encryption     string
	AuthRequired   string
	UsePOPAuth     string `xml:",omitempty"`
	SMTPLast       string `xml:",omitempty"`
}

// Outlook returns the autodiscover answer for an address. It holds the best outgoing server alone: Outlook takes one,
// and STARTTLS is where its versions differ.
func (s *Setup) Outlook(address mail.Address) ([]byte, error) {
	if err := s.byPassword("Outlook's autodiscover"); err != nil {
		return nil, err
	}
	var doc autodiscoverAnswer
	doc.Response.Space, doc.Response.Type, doc.Response.Action = outlookResponse, "email", "settings"
	smtp := protocolOf(s.Outgoing[0], address)
	smtp.UsePOPAuth, smtp.SMTPLast = "off", "off"
	doc.Response.Protocol = []outlookProtocol{protocolOf(*s.Incoming, address), smtp}
	return marshalXML(doc)
}

// protocolOf is a server as Outlook is told. "SSL" is TLS from the first octet, "TLS" is STARTTLS.
func protocolOf(s Server, address mail.Address) outlookProtocol {
	p := outlookProtocol{Type: strings.ToUpper(s.Protocol), Server: s.Host, Port: s.Port, DomainRequired: "off",
		LoginName: login(s.Username, address), SPA: "off", SSL: "on", Encryption: "SSL", AuthRequired: "on"}
	if s.TLS == config.StartTLS {
		p.Encryption = "TLS"
	}
	return p
}

// The errors of autodiscover (MS-OXDSCLI §2.2.4.1.2).
const (
	OutlookBadAddress = 500 // the address is none, or of another domain
	OutlookBadRequest = 600
	OutlookNoProvider = 601 // the schema that was asked for is not ours
)

var outlookErrors = map[int]string{
	OutlookBadAddress: "The email address cannot be found.",
	OutlookBadRequest: "Invalid Request",
	OutlookNoProvider: "Provider is not available",
}

type autodiscoverError struct {
	XMLName xml.Name `xml:"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006 Autodiscover"`
	Error   struct {
		Time    string `xml:",attr"`
		ID      string `xml:"Id,attr"`
		Code    int    `xml:"ErrorCode"`
		Message string `xml:"Message"`
		Debug   string `xml:"DebugData"`
	} `xml:"Response>Error"`
}

// OutlookError returns an answer without settings. It repeats nothing of the request.
func OutlookError(code int, now time.Time) []byte {
	var doc autodiscoverError
	e := &doc.Error
	e.Time, e.ID, e.Code, e.Message = now.UTC().Format("15:04:05.0000000"), "1", code, outlookErrors[code]
	b, _ := marshalXML(doc) // of texts and numbers
	return b
}
