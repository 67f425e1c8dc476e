package relay

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

const fieldMessage = "From: anna@example.com\n" + fieldRest

// TestFieldPaths: MAIL and RCPT as programs write them.
func TestFieldPaths(t *testing.T) {
	var cases []fieldCase
	const noAddress, unreadable = "501 5.1.7 the sender is not a complete address: ",
		"501 5.1.7 the sender cannot be read: "
	for _, c := range []struct{ name, seen, from, plain, rewritten string }{
		{"no brackets", "cosullivan/SmtpServer#219 (LSI MegaRAID)", "FROM:anna@example.com", "", ""},
		{"blank", "mjl-/mox#101, murphysean/smtp#1 (Xerox)", "FROM: <anna@example.com>", "", ""},
		{"blank, no brackets", "blueimp/aws-smtp-relay#7", "FROM: anna@example.com", "", ""},
		{"blank before the colon", "zone-eu/zone-mta#116", "FROM : anna@example.com", "", ""},
		{"tab", "KumoCorp/kumomta#559", "FROM:\t<anna@example.com>", "", ""},
		{"X.400", "rnwood/smtp4dev#4",
			"FROM:anna@example.com SIZE=754 ENVID=X400-MTS-Identifier:+20[/PRMD+3dFirst/C+3dGB/;DC01-98] RET=FULL", "",
			""},
		{"AUTH of Outlook.com", "rnwood/smtp4dev#565", "FROM:<anna@example.com> SIZE=300 AUTH=<>", "", ""},
		{"AUTH of KMail", "emersion/go-smtp#95", "FROM:<anna@example.com> AUTH=<anna@example.com>", "", ""},
		{"BODY", "andris9/simplesmtp#17", "FROM:<anna@example.com> BODY=8BITMIME", "", ""},
		{"SMTPUTF8", "kisli/vmime#186", "FROM:<anna@example.com> BODY=8BITMIME SMTPUTF8", "", ""},
		{"null", "cronie-crond/cronie#170", "FROM:<>", "", ""},
		{"capitals", "Lotus", "From:<ANNA@EXAMPLE.COM>", "", ""},
		{"VERP", "sympa-community/sympa#1160",
			"FROM:<bounce+aaaaaaaaaaaaaaaaaa==a==rrrrrrrrrrrrrrrrrrrrrrrrrrr==ddddd-divers==5288513@lists.example.com>",
			"", ""},
		{"SRS", "zetacomponents/Mail#91",
			"FROM:<SRS0=3Ypr33=QM=crm.nothappyjohn.org.au=bounce+b.25211.6039846.eb7e7e8ba282f9d0@lists.example.com>",
			"", ""},
		{"Google Docs", "jcbf/smf-spf#52", "FROM:<3" + strings.Repeat("x", 85) + "@lists.example.com>", "", ""},
		{"VERP with hashes", "PHPMailer/PHPMailer#2316",
			"FROM:<wizbounce_9999_aedmunds=brandywine.com_2021-04-1614#30#24@lists.example.com>", "", ""},
		{"root", "marlam/msmtp#51", "FROM:<root>", noAddress + `expected user@example.com, not "root"`, ""},
		{"a host of its own", "netdata/netdata#2042", "FROM:<root@naemon.localdomain>",
			"550 5.7.1 anna@example.com may not send as <root@naemon.localdomain>", ""},
		{"name in brackets", "acassen/keepalived#2365", "FROM:<Keepalived <keepalived@lb1>>", unreadable, ""},
		{"name", "bcosca/fatfree#1177", `FROM:"Mr, Example 1" <one@example.com>`, unreadable, ""},
		{"comment", "yo8192/fcron#15", "FROM:<root@nas (fcron)>", noAddress, ""},
		{"quotes", "danchoi/vmail#67", `FROM:"Alexandre Massé <anna@example.com>"`, unreadable, ""},
		{"bracket never closed", "camera", "FROM:<anna@example.com", unreadable, ""},
		{"nothing", "UPS", "FROM:", unreadable, ""},
		{"no colon", "telnet", "FROM <anna@example.com>", unreadable, ""},
		{"Latin-1", "MFP", "FROM:<b\xfcro@example.com>", noAddress, ""},
		{"no host", "MFP", "FROM:<anna@>", noAddress, ""},
		{"route", "Sendmail", "FROM:<@gw.example:anna@example.com>", "501 5.1.7 source routes", ""},
		{"unknown parameter", "Postfix XVERP", "FROM:<anna@example.com> XVERP", "555 5.5.4 unknown parameter XVERP",
			"555 5.5.4"},
		{"BINARYMIME", "jstedfast/MailKit#151", "FROM:<anna@example.com> BODY=BINARYMIME",
			"501 5.5.4 parameter BODY: expected 7BIT or 8BITMIME", "501"},
	} {
		cases = append(cases,
			fieldCase{name: c.name + ", " + refusing, seen: c.seen, from: c.from, message: fieldMessage,
				refused: c.plain},
			fieldCase{name: c.name + ", " + rewriting, seen: c.seen, listener: rewriting, from: c.from,
				message: fieldMessage, refused: c.rewritten})
	}
	for _, c := range []struct{ name, seen, rcpt, refused string }{
		{"no brackets", "cosullivan/SmtpServer#219", "TO:bob@example.net", ""},
		{"blank", "mludvig/smtp-cli#9", "TO: <bob@example.net>", ""},
		{"blanks inside", "CDO", "TO:< bob@example.net >", ""},
		{"dots", "docomo", "TO:<bob..b.@example.net>", ""},
		{"token", "aio-libs/aiosmtpd#257", "TO:<announcements-confirm+" + strings.Repeat("0123456789abcdef", 4) +
			"@example.net>", ""},
		{"fax", "Ricoh", "TO:<FAX=+4930123456@fax.example.net>", ""},
		{"apostrophe", "Exchange", "TO:<o'brien@example.net>", ""},
		{"quoted", "JavaMail", `TO:<"bob smith"@example.net>`, ""},
		{"DSN", "Thunderbird", "TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;bob@example.net", ""},
		{"root", "sunweaver/nextcloud-high-performance-backend-setup#61", "TO:<root>",
			`501 5.1.3 the recipient is not a complete address: expected user@example.com, not "root"`},
		{"two", "Kyocera", "TO:<bob@example.net,zoe@example.net>",
			"501 5.1.3 the recipient is more than one address: enter each by itself"},
		{"two, with a semicolon", "Canon", "TO:<bob@example.net;zoe@example.net>",
			"501 5.1.3 the recipient is more than one address"},
		{"name", "PHP", "TO:<Bob <bob@example.net>>",
			"501 5.1.3 the recipient cannot be read: expected RCPT TO:<user@example.com>, not RCPT TO:<Bob " +
				"<bob@example.net>>"},
		{"nothing", "form", "TO:<>", "501 5.1.3"},
	} {
		cases = append(cases, fieldCase{name: "to: " + c.name, seen: c.seen, rcpt: c.rcpt, message: fieldMessage,
			refused: c.refused})
	}
	runField(t, cases)
}

// TestFieldDialogs: sessions as programs hold them. A step is what the client writes, and how each reply to it begins.
func TestFieldDialogs(t *testing.T) {
	t.Parallel()
	user, password := base64.StdEncoding.EncodeToString([]byte(rigLogin)),
		base64.StdEncoding.EncodeToString([]byte(rigPassword))
	type step struct {
		write   string
		replies []string
	}
	say := func(write string, replies ...string) step { return step{write + "\r\n", replies} }
	const envelope = "MAIL FROM:<anna@example.com>\r\nRCPT TO:<bob@example.net>"
	message := crlfs(fieldMessage)
	auth := say("EHLO a\r\n"+fieldAuth, "250-", "235")
	chunk := fmt.Sprintf("BDAT %d LAST\r\n%s", len(message), strings.TrimSuffix(message, "\r\n"))
	send := []step{say(envelope, "250", "250"), say("DATA", "354"), say(message+".", "250 ")}
	r := newFieldRig(t)
	for _, c := range []struct {
		name, seen string
		steps      []step
		taken      bool
	}{
		{"no name", "OpenSMTPD/OpenSMTPD#1054 (UPS)", append([]step{say("HELO ", "250 "), say(fieldAuth, "235")},
			send...), true},
		{"underscore", "nextcloud/server#14941, roundcube/roundcubemail#6408", append([]step{say("EHLO _", "250-"),
			say(fieldAuth, "235")}, send...), true},
		{"container", "ix-ai/smtp#6", append([]step{say("EHLO viiv_craft_1.viiv_internal", "250-"), say(fieldAuth,
			"235")}, send...), true},
		{"address", "linagora/james-project#5317",
			append([]step{say("EHLO [IPV6:2a01:cb06:b841:bf5d:38ff:861a:1646:ab77]", "250-"), say(fieldAuth, "235")},
				send...), true},
		{"class", "jstedfast/MailKit#351", append([]step{say("EHLO [Windows.Networking.Connectivity.IPInformation]",
			"250-"), say(fieldAuth, "235")}, send...), true},
		{"Cyrillic", "jstedfast/MailKit#1501", append([]step{say("EHLO ПК-1", "250-"), say(fieldAuth, "235")}, send...),
			true},
		{"two words", "zabbix/zabbix-docker#971", append([]step{say("EHLO Zabbix Monitoring", "250-"), say(fieldAuth,
			"235")}, send...), true},
		{"EHLO and HELO", "kost/smtp2mqtt#1 (camera)", append([]step{say("EHLO localhost", "250-"),
			say("HELO localhost", "250 "), say("AUTH LOGIN", "334 VXNlcm5hbWU6"), say(user, "334 UGFzc3dvcmQ6"),
			say(password, "235")}, send...), true},
		{"EHLO after AUTH", "jstedfast/MailKit#162", append([]step{auth, say("EHLO a", "250-")}, send...), true},
		{"user in line", "mjl-/mox#387 (Veeam), postalserver/postal#250 (.NET)", append([]step{say("EHLO a", "250-"),
			say("AUTH login "+user, "334 UGFzc3dvcmQ6"), say(password, "235")}, send...), true},
		{"PLAIN in two steps", "haraka/Haraka#1366 (Opera)", append([]step{say("EHLO a", "250-"), say("AUTH PLAIN",
			"334 "), say(strings.TrimPrefix(fieldAuth, "AUTH PLAIN "), "235")}, send...), true},
		{"two names in PLAIN", "hmailserver/hmailserver#482", append([]step{say("EHLO a", "250-"),
			say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte(rigLogin+"\x00"+rigLogin+"\x00"+rigPassword)),
				"235")}, send...), true},
		{"padding of one", "nim-lang/Nim#15029", append([]step{say("EHLO a", "250-"), say("AUTH LOGIN", "334"),
			say(strings.TrimSuffix(user, "="), "334"), say(password+" ", "235")}, send...), true},
		{"methods in turn", "smtplib, PHPMailer", append([]step{say("EHLO a", "250-"), say("AUTH CRAM-MD5", "504"),
			say("AUTH NTLM", "504"), say(fieldAuth, "235")}, send...), true},
		{"user in clear", "camera", []step{say("EHLO a", "250-"), say("AUTH LOGIN", "334"), say(rigLogin,
			"501 5.5.2 the login is malformed: it is not base64")}, false},
		{"login forgotten", "dotnet/runtime", []step{say("EHLO a", "250-"), say("MAIL FROM:<anna@example.com>",
			`530 5.7.0 login needed: set the authentication method to "normal password"`)}, false},
		{"no EHLO", "nim-lang/Nim#15029", []step{say(fieldAuth, "503 5.5.1 send EHLO first")}, false},
		{"STARTTLS where there is none", "xhit/go-simple-mail#94", append([]step{say("EHLO a", "250-"), say("STARTTLS",
			"502 5.5.1 TLS is not available here; set the connection security to none"), say(fieldAuth, "235")},
			send...), true},
		{"all at once", "nymea/nymea-plugins#724, lamw/ghettoVCB#339 (netcat)",
			[]step{say("EHLO a\r\n"+fieldAuth+"\r\n"+envelope+"\r\nDATA\r\n"+message+".\r\nQUIT", "250-", "235", "250",
				"250", "354", "250", "221")}, true},
		{"no waiting behind a refusal", "swiftmailer/swiftmailer#1265", append([]step{auth,
			say("MAIL FROM:<x@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA", "550 5.7.1", "503", "503"),
			say("RSET", "250")}, send...), true},
		{"chunk", "davidmoten/subethasmtp#75 (Exchange)", []step{auth, say(envelope+"\r\n"+chunk, "250", "250",
			"250 ")}, true},
		{"chunk behind a refusal", "emersion/go-smtp#315", append([]step{auth,
			say("MAIL FROM:<x@example.org>\r\n"+chunk, "550", "503")}, send...), true},
		{"chunks and nothing", "jstedfast/MailKit#921", []step{auth, say(envelope, "250", "250"), {"BDAT 10\r\n" +
			message[:10], []string{"250"}}, {fmt.Sprintf("BDAT %d\r\n%s", len(message)-10, message[10:]),
			[]string{"250"}}, say("BDAT 0 LAST", "250 ")}, true},
		{"LF in a chunk", "phires/go-guerrilla#27", []step{auth, say(envelope, "250", "250"),
			{"BDAT 29 LAST\r\nFrom: anna@example.com\n\nbody\n",
				[]string{`550 5.6.0 line 1 ("From: anna@example.com") ends with a bare LF`}}}, false},
		{"LF in the header", "FreePBX/issue-tracker#1065", []step{auth, say(envelope, "250", "250"), say("DATA", "354"),
			say("From: anna@example.com\nSubject: x\r\n\r\nbody\r\n.",
				`550 5.6.0 line 1 ("From: anna@example.com") ends with a bare LF; lines must end with CR LF`)}, false},
		{"two CRs", "muquit/mailsend#52, marlam/msmtp#145", []step{auth, say(envelope, "250", "250"), say("DATA",
			"354"), say("From: anna@example.com\r\n\r\nbody\r\r\n.", `550 5.6.0 line 3 ("body\r") has a bare CR`)},
			false},
		{"LF behind commands", "camera", []step{auth, {"MAIL FROM:<anna@example.com>\n",
			[]string{"500 5.5.2 a command ends with CR LF"}}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := r.dial(t, refusing)
			before := r.sink.Stats().Messages
			for _, s := range c.steps {
				x.write(s.write)
				for _, want := range s.replies {
					if got := x.reply(); !strings.HasPrefix(got, want) {
						t.Fatalf("%q is answered %q, want %q (%s)", s.write, got, want, c.seen)
					}
				}
			}
			if n := r.sink.Stats().Messages - before; (n == 1) != c.taken {
				t.Fatalf("the upstream has %d messages more", n)
			}
			if c.taken {
				r.inOrder(t, r.arrival())
			}
		})
	}
}
