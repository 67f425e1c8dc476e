package upstream

import (
	"strconv"
	"strings"

	"postern/mail"
)

// extensions is what EHLO offered.
type extensions struct {
	startTLS, pipelining, chunking, eightBit, utf8, dsn bool

	sizeOffered bool
	size        int64    // most octets, 0: no limit is known (RFC 1870 §4)
	auth        []string // upper case, in the order of the offer
	rcptMax     int      // LIMITS (RFC 9422), 0: unknown
	mailMax     int
	keywords    []string // as offered, for people
}

// parseEHLO reads the lines behind the first. Unknown keywords are nobody's trouble.
func parseEHLO(r mail.Reply) extensions {
	var x extensions
	for i, line := range strings.Split(r.Text, "\n") {
		if i == 0 || line == "" {
			continue
		}
		x.keywords = append(x.keywords, line)
		// "AUTH=PLAIN LOGIN" is how servers of before RFC 2554 had it; some say it both ways.
		line = strings.ToUpper(line)
		if rest, ok := strings.CutPrefix(line, "AUTH="); ok {
			line = "AUTH " + rest
		}
		f := strings.Fields(line)
		if len(f) > 0 {
			x.add(f[0], f[1:])
		}
	}
	return x
}

func (x *extensions) add(keyword string, args []string) {
	switch keyword {
	case "STARTTLS":
		x.startTLS = true
	case "PIPELINING":
		x.pipelining = true
	case "CHUNKING":
		x.chunking = true
	case "8BITMIME":
		x.eightBit = true
	case "SMTPUTF8":
		x.utf8 = true
	case "DSN":
		x.dsn = true
	case "SIZE":
		x.sizeOffered = true
		if len(args) > 0 {
			if n, err := strconv.ParseInt(args[0], 10, 64); err == nil && n > 0 {
				x.size = n
			}
		}
	case "AUTH":
		for _, m := range args {
			if !x.offers(m) {
				x.auth = append(x.auth, m)
			}
		}
	case "LIMITS":
		for _, a := range args {
			x.limit(a)
		}
	}
}

func (x *extensions) limit(arg string) {
	name, value, _ := strings.Cut(arg, "=")
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return
	}
	switch name {
	case "RCPTMAX":
		x.rcptMax = n
	case "MAILMAX":
		x.mailMax = n
	}
}

func (x *extensions) offers(mechanism string) bool {
	for _, m := range x.auth {
		if m == mechanism {
			return true
		}
	}
	return false
}
