package relay

import (
	"strings"
	"testing"
)

const fieldRest = "To: bob@example.net\nSubject: x\n\nbody\n"

// Refusals as they begin; what stands between is the line.
const (
	lineOne = `550 5.6.0 line 1 ("`
	foreign = "550 5.7.1 the header says that the message is from <"
)

// TestFieldAuthors: From, Sender and their relatives as programs write them. Without rewriting what has one meaning and
// is the login's own is taken; with it nothing in these fields refuses.
func TestFieldAuthors(t *testing.T) {
	var cases []fieldCase
	for _, c := range []struct {
		name, seen, header string
		plain              string // what it is without rewriting: header lines, or the beginning of a refusal
		rewritten          string // what it is with it; "": the same
	}{
		{"cron", "corecode/dma#75", "From: root (Cron Daemon)", lineOne +
			`From: root (Cron Daemon)"): the From field has a malformed address`,
			"From: Cron Daemon <anna@example.com>"},
		{"cronie", "marlam/msmtp#54", `From: "(Cron Daemon)" <root>`, lineOne,
			`From: "(Cron Daemon)" <anna@example.com>`},
		{"cronie, qualified", "cronie", `From: "(Cron Daemon)" <anna@example.com>`,
			`From: "(Cron Daemon)" <anna@example.com>`, ""},
		{"fcron", "yo8192/fcron#15", "From: anna@example.com (fcron)", "From: fcron <anna@example.com>", ""},
		{"fcron by nullmailer", "yo8192/fcron#15", "From: root <anna@example.com (fcron)>",
			"From: root <anna@example.com>", ""},
		{"a host of its own", "Tontonjo/proxmox_toolbox#1", "From: root <root@pve.localdomain>", foreign +
			"root@pve.localdomain>", "From: root <anna@example.com>\nReply-To: root <root@pve.localdomain>"},
		{"a word", "marlam/msmtp#54", "From: test", lineOne, "From: <anna@example.com>"},
		{"no host", "netdata/netdata#2042", "From: netdata on nas <netdata>", lineOne,
			"From: netdata on nas <anna@example.com>"},
		{"name without an address", "tlovett1/custom-contact-forms#286", "From: Lorem Ipsum <>",
			"From: Lorem Ipsum <anna@example.com>", ""},
		{"empty", "MailScanner/v5#516", "From:", "From: <anna@example.com>", ""},
		{"missing", "anoved/OctoPrint-EmailNotifier#37", "X-Mailer: x", "From: <anna@example.com>", ""},
		{"two", "truenas/middleware#19284", "From: root <root@truenas.local>\nFrom: anna@example.com",
			`550 5.6.0 line 2 ("From: anna@example.com"): the From field occurs 2 times`,
			"From: root <anna@example.com>"},
		{"twice the same", "truenas/middleware#19284", "From: anna@example.com\nFrom: anna@example.com",
			`550 5.6.0 line 2 ("From: anna@example.com"): the From field occurs 2 times`, "From: <anna@example.com>"},
		{"name as an address of the list", "formtools/core#85", "From: Anna <anna@example.com>, Anna, anna@example.com",
			lineOne, "From: Anna <anna@example.com>"},
		{"Outlook's separator", "Outlook", "From: anna@example.com; scans@example.com", lineOne,
			"From: <anna@example.com>"},
		{"trailing comma", "PHP implode", "From: anna@example.com,", "From: <anna@example.com>", ""},
		{"serial number", "Ricoh", "From: [RNP0026739E1234] <scans@example.com>",
			`From: "[RNP0026739E1234]" <scans@example.com>`, ""},
		{"hardware address", "Kyocera", "From: TASKalfa 3253ci [00:c0:ee:12:34:56] <scans@example.com>",
			`From: "TASKalfa 3253ci [00:c0:ee:12:34:56]" <scans@example.com>`, ""},
		{"colon", "HP", "From: HP LaserJet: 3rd floor <scans@example.com>",
			`From: "HP LaserJet: 3rd floor" <scans@example.com>`, ""},
		{"address as name", "SMTP2Graph/SMTP2Graph#28", "From: scans@example.com <scans@example.com>",
			`From: "scans@example.com" <scans@example.com>`, ""},
		{"another address as name", "SMTP2Graph/SMTP2Graph#28", `From: "ceo@bank.example" <scans@example.com>`,
			foreign + "ceo@bank.example>", "From: <anna@example.com>"},
		{"slash and dots", "Konica Minolta", "From: bizhub C308/2. OG <scans@example.com>",
			`From: "bizhub C308/2. OG" <scans@example.com>`, ""},
		{"Latin-1", "Canon", "From: B\xfcro <scans@example.com>", "From: Büro <scans@example.com>", ""},
		{"Latin-1, quoted", "Canon", "From: \"B\xfcro, EG\" <scans@example.com>", "From: Büro, EG <scans@example.com>",
			""},
		{"UTF-8", "jstedfast/MimeKit#706", "From: Büro <scans@example.com>", "From: Büro <scans@example.com>", ""},
		{"open quote", "vmail#67", `From: "Scanner <scans@example.com>`, lineOne, "From: Scanner <anna@example.com>"},
		{"quotes twice", "zapier", `From: ""Scanner"" <scans@example.com>`, "From: Scanner <scans@example.com>", ""},
		{"last, first", "spartanz51/tutabridge#26", "From: Doe, Jane <anna@example.com>",
			`From: "Doe, Jane" <anna@example.com>`, ""},
		{"company", "spartanz51/tutabridge#26", "From: npm, Inc. <anna@example.com>",
			`From: "npm, Inc." <anna@example.com>`, ""},
		{"role of a company", "choyiny/saasmail#198", "From: Ada, VP of Engineering <anna@example.com>",
			`From: "Ada, VP of Engineering" <anna@example.com>`, ""},
		{"parentheses", "googleworkspace/cli#513", "From: Anderson, Rich (CORP) <anna@example.com>",
			`From: "Anderson, Rich (CORP)" <anna@example.com>`, ""},
		{"HTML entity", "wpninjas/ninja-forms#2574", "From: Kenn Nesbitt&#039;s Poetry <anna@example.com>",
			`From: "Kenn Nesbitt&#039;s Poetry" <anna@example.com>`, ""},
		{"pipe", "mmucklo/email-parse#19", "From: Example | Example <anna@example.com>",
			"From: Example | Example <anna@example.com>", ""},
		{"exclamation mark", "domodwyer/mailyak#78", "From: Hello, this is a test! <anna@example.com>",
			`From: "Hello, this is a test!" <anna@example.com>`, ""},
		{"domain and user", "VBA", `From: OFFICE\anna <anna@example.com>`, `From: "OFFICE\\anna" <anna@example.com>`,
			""},
		{"bracket never closed", "PHP", "From: Anna <anna@example.com", lineOne, "From: Anna <anna@example.com>"},
		{"brackets twice", "acassen/keepalived#2365", "From: Keepalived <<anna@example.com>>", lineOne,
			"From: Keepalived <anna@example.com>"},
		{"no brackets", "PHP", "From: Anna anna@example.com", lineOne, "From: <anna@example.com>"},
		{"blanks in brackets", "CDO", "From: Anna < anna@example.com >", "From: Anna <anna@example.com>", ""},
		{"encoded without a blank", "bluetiger9/SmtpClient-for-Qt#98", "From: =?UTF-8?B?QW5uYQ==?=<anna@example.com>",
			"From: Anna <anna@example.com>", ""},
		{"encoded in quotes", "Automattic/jetpack#6528", `From: "=?UTF-8?Q?M=C3=A4ntt?=" <anna@example.com>`,
			"From: Mäntt <anna@example.com>", ""},
		{"encoded with quotes", "Automattic/jetpack#6528", `From: =?UTF-8?Q?"Miia_M=C3=A4ntt"?= <anna@example.com>`,
			"From: Miia Mäntt <anna@example.com>", ""},
		{"encoded as a whole", "mikel/mail#1383", "From: =?utf-8?Q?Anna_<anna=40example.com>?=", lineOne,
			"From: Anna <anna@example.com>"},
		{"encoded words side by side", "python/cpython#144156",
			"From: =?utf-8?q?_?==?utf-8?q?Gen=C3=A8ve?= <anna@example.com>", "From: Genève <anna@example.com>", ""},
		{"empty encoded word", "stalwartlabs/mail-parser#29", "From: =?utf-8?Q??= <anna@example.com>",
			"From: <anna@example.com>", ""},
		{"unknown charset", "Lotus", "From: =?x-unknown?B?QW5uYQ==?= <anna@example.com>", lineOne,
			"From: <anna@example.com>"},
		{"group", "undisclosed", "From: undisclosed-recipients:;", lineOne, "From: <anna@example.com>"},
		{"too long for a line", "phone", "From: " + strings.Repeat("x", 1200) + " <anna@example.com>", "", ""},
		{"control character", "camera", "From: Cam\x01 <anna@example.com>",
			`550 5.6.0 header refused: line 1 ("From: Cam\x01 <anna@example.com>") contains a control`,
			"From: Cam  <anna@example.com>"},
		{"blank before the colon", "PHP", "From : anna@example.com", "550 5.6.0 header refused: line 1",
			"From: anna@example.com"},
		{"smiley", "form", "From: Anna :) <anna@example.com>", lineOne, `From: "Anna :)" <anna@example.com>`},
		{"empty Sender", "RainLoop/rainloop-webmail#1934", "From: scans@example.com\nSender:",
			"From: scans@example.com", ""},
		{"Sender of a host", "RainLoop/rainloop-webmail#1934", "From: scans@example.com\nSender: @example.com",
			`550 5.6.0 line 2 ("Sender: @example.com"): the Sender field has a malformed address`,
			"From: scans@example.com"},
		{"Sender of the web server", "PHP mail()", "From: scans@example.com\nSender: apache@web1.localdomain", foreign +
			"apache@web1.localdomain>", "From: scans@example.com"},
		{"Sender only", "eugene-eeo/mailthon#19", "Sender: anna@example.com",
			"From: <anna@example.com>\nSender: anna@example.com", ""},
		{"resent by another", "mutt", "From: anna@example.com\nResent-From: zoe@example.org", foreign +
			"zoe@example.org>", foreign + "zoe@example.org>"},
		{"list of itself", "Google Docs", "From: news@lists.example.com", "From: news@lists.example.com", ""},
	} {
		for _, listener := range []string{refusing, rewriting} {
			want := c.plain
			if listener == rewriting && c.rewritten != "" {
				want = c.rewritten
			}
			f := fieldCase{name: c.name + ", " + listener, seen: c.seen, listener: listener, message: c.header + "\n" +
				fieldRest}
			if strings.HasPrefix(want, "550") {
				f.refused = want
			} else {
				f.has = want
			}
			cases = append(cases, f)
		}
	}
	runField(t, cases)
}
