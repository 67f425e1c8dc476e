package smtp

import (
	"fmt"
	"slices"
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
		// "AUTH=PLAIN LOGIN" is how servers of before RFC 2554 had it; some say it both ways, and SIZE too.
		line = strings.ToUpper(line)
		for _, keyword := range []string{"AUTH", "SIZE"} {
			if rest, ok := strings.CutPrefix(line, keyword+"="); ok {
				line = keyword + " " + rest
			}
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

// knownExtensions are those whose use can be forced or forbidden.
var knownExtensions = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE"}

// CheckExtensions checks Config.AssumeExtensions and Config.DenyExtensions.
func CheckExtensions(assume, deny []string) error {
	for _, line := range slices.Concat(assume, deny) {
		keyword, _, _ := strings.Cut(strings.ToUpper(line), " ")
		if !slices.Contains(knownExtensions, keyword) {
			return fmt.Errorf("%q is no extension that can be assumed or denied; there are %s", line,
				strings.Join(knownExtensions, ", "))
		}
	}
	return nil
}

// adjust applies what is known better than EHLO says it.
func (x *extensions) adjust(assume, deny []string, maxSize int64) {
	for _, line := range assume {
		if f := strings.Fields(strings.ToUpper(line)); len(f) > 0 {
			x.add(f[0], f[1:])
		}
	}
	for _, keyword := range deny {
		x.deny(strings.ToUpper(keyword))
	}
	if maxSize > 0 && (x.size == 0 || x.size > maxSize) {
		x.size = maxSize
	}
}

func (x *extensions) deny(keyword string) {
	switch keyword {
	case "PIPELINING":
		x.pipelining = false
	case "CHUNKING":
		x.chunking = false
	case "8BITMIME":
		x.eightBit = false
	case "SMTPUTF8":
		x.utf8 = false
	case "DSN":
		x.dsn = false
	case "SIZE":
		x.sizeOffered, x.size = false, 0
	}
}
