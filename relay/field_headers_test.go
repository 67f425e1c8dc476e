package relay

import (
	"strings"
	"testing"
)

// TestFieldHeaders: the rest of the header, and bodies.
func TestFieldHeaders(t *testing.T) {
	const own = "From: anna@example.com\n"
	html := strings.Repeat("<p>hallo</p>", 200)
	signed := own +
		"MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pkcs7-signature\"; " +
		"micalg=sha-256\n\n" +
		"--b\n\n%s\n--b\nContent-Type: application/pkcs7-signature\n\nx\n--b--\n"
	field := func(f string) string { return own + f + "\n" + fieldRest }
	runField(t, []fieldCase{
		{name: "no Date", seen: "docker-mailserver#1853 (HP)", message: own + fieldRest},
		{name: "empty Date", seen: "msmtp", message: field("Date:"), hasNot: "Date:\n"},
		{name: "ISO date", seen: "Extended-Thunder/send-later#18", message: field("Date: 2020-09-30T17:24:21+02:00"),
			has: "Date: Wed, 30 Sep 2020 17:24:21 +0200"},
		{name: "short date", seen: "superseriousbusiness/gotosocial#3971",
			message: field("Date: 06 Apr 25 10:18 +0000"), has: "Date: 06 Apr 25 10:18 +0000"},
		{name: "date of a database", seen: "Purelymail/purelymail-issues#114",
			message: field("Date: 05-FEB-2021 22:05:02"), hasNot: "FEB"},
		{name: "date of Ruby", seen: "falcosecurity/falcosidekick#1382",
			message: field("Date: Wed Jun 11 06:36:53 +0000 2026"), has: "Date: Thu, 11 Jun 2026 06:36:53 +0000"},
		{name: "date in German", seen: "PHP strftime", message: field("Date: Do, 11 Jun 2026 06:36:53 +0200"),
			has: "Date: Thu, 11 Jun 2026 06:36:53 +0200"},
		{name: "date of JavaScript", seen: "nodemailer",
			message: field("Date: Thu Jun 11 2026 06:36:53 GMT+0200 (CEST)"),
			has:     "Date: Thu, 11 Jun 2026 06:36:53 +0200"},
		{name: "Message-ID without brackets", seen: "bkaankose/Wino-Mail#712, emersion/hydroxide#141",
			message: field("Message-ID: faff5b13bff1@zohomail.com"), has: "Message-ID: <faff5b13bff1@zohomail.com>"},
		{name: "Message-ID is a number", seen: "cyrusimap/cyrus-imapd#5058, gen-smtp/gen_smtp#253",
			message: field("Message-ID: 3a53c9f21a8e41f0bb9558c8029e16f0"), hasNot: "3a53"},
		{name: "Message-ID without a host", seen: "cyrusimap/cyrus-imapd#5058",
			message: field("Message-ID: <3a53c9f2-1a8e-41f0>"), hasNot: "3a53"},
		{name: "Message-ID of two hosts", seen: "splitbrain/dokuwiki-plugin-smtp#59",
			message: field("Message-ID: <5d41@anna@example.com>"), hasNot: "5d41"},
		{name: "Message-ID twice", seen: "krayin/laravel-crm#1145",
			message: field("Message-ID: <a@x>\nMessage-ID: <b@x>"), has: "Message-ID: <a@x>", hasNot: "<b@x>"},
		{name: "empty MIME-Version", seen: "cronie-crond/cronie#5",
			message: field("MIME-Version:\nContent-Type: text/plain; charset=UTF-8"), has: "MIME-Version: 1.0"},
		{name: "Content-Type twice", seen: "LeastAuthority/leastauthority.com#236",
			message: field("Content-Type: text/plain\nContent-Type: text/plain"),
			hasNot:  "Content-Type: text/plain\nContent-Type"},
		{name: "To twice", seen: "ossec/ossec-hids#2271, domodwyer/mailyak#70", message: field("To: carol@example.net"),
			has: "To: carol@example.net, bob@example.net"},
		{name: "Cc twice, one empty", seen: "djcb/mu#2869", message: field("Cc: zoe@example.net\nCc: "),
			has: "Cc: zoe@example.net"},
		{name: "Reply-To twice", seen: "Chaste/Chaste#268",
			message: field("Reply-To: a@example.net\nReply-To: b@example.net"),
			has:     "Reply-To: a@example.net, b@example.net"},
		{name: "empty Reply-To", seen: "contact form", message: field("Reply-To: \nCc:"), hasNot: "Reply-To: \n"},
		{name: "Subject twice", seen: "dfinity/internet-identity#3948", message: field("Subject: y"), has: "Subject: y",
			hasNot: "Subject: x"},
		{name: "Bcc", seen: "smtplib", message: field("Bcc: eve@example.net"), hasNot: "eve@"},
		{name: "raw subject", seen: "openmediavault/openmediavault#1058, jstedfast/MimeKit#706",
			message: field("X-Subject: Größe"), has: "X-Subject: Größe"},
		{name: "raw subject, SMTPUTF8", seen: "kisli/vmime#186, net/smtp",
			from: "FROM:<anna@example.com> BODY=8BITMIME SMTPUTF8", message: field("X-Subject: Größe"),
			has: "X-Subject: Größe"},
		{name: "raw subject in Latin-1", seen: "Kyocera", message: field("X-Subject: Gr\xf6\xdfe"),
			has: "X-Subject: Größe"},
		{name: "raw subject in GBK", seen: "DVR",
			message: field("X-Subject: \xce\xd2\xb5\xc4\nContent-Type: text/plain; charset=gb2312"),
			has:     "X-Subject: 我的"},
		{name: "raw recipient", seen: "chatmail/core#4969", message: own + "To: Büro <bob@example.net>\n\nbody\n",
			has: "To: Büro <bob@example.net>"},
		{name: "raw name of a file", seen: "fax server", message: own +
			"Content-Type: application/pdf; name=\"Größe.pdf\"\n\nx\n",
			has: "Content-Type: application/pdf; name*=utf-8''Gr%C3%B6%C3%9Fe.pdf"},
		{name: "subject in one encoded word", seen: "productdevbook/unemail#121",
			message: field("X-Subject: =?utf-8?B?" + strings.Repeat("w7xi", 300) + "?=")},
		{name: "recipients in one line", seen: "vert-x3/vertx-mail-client#220", message: field("Cc: " +
			strings.Repeat("bob@example.net,", 80) + "zoe@example.net")},
		{name: "recipients in a custom field", seen: "PHPMailer/PHPMailer#726", message: field("X-SMTPAPI: " +
			strings.Repeat(`"bob@example.net", `, 80))},
		{name: "blank line in a list", seen: "chatmail/core#2118",
			message: field("Cc: a@example.net,\n \t\n b@example.net"), has: "Cc: a@example.net, b@example.net"},
		{name: "mbox line", seen: "corecode/dma#136", message: "From anna@example.com Wed Jun 11 06:36:53 2026\n" +
			own + fieldRest},
		{name: "quoted mbox line", seen: "corecode/dma#136", message: ">From MAILER-DAEMON\n" + own + fieldRest},
		{name: "byte order mark", seen: "PowerShell", message: "\xef\xbb\xbf" + own + fieldRest},
		{name: "52 hops", seen: "Google Groups",
			message: strings.Repeat("Received: from a by b; Wed, 11 Jun 2026 06:36:53 +0200\n", 52) + own + fieldRest},
		{name: "header only", seen: "OpenSMTPD/OpenSMTPD#646", message: own + "Subject: x"},
		{name: "no header", seen: "camera", message: "\nbody\n", has: "From: <anna@example.com>"},
		{name: "no blank line", seen: "NLNOG/ring-sqa#24", message: own + "Subject: x\nclearing the alarm\n",
			refused: `550 5.6.0 header refused: line 3 ("clearing the alarm") is neither`},
		{name: "no name", seen: "galtzo-floss/sanitize_email#14", message: own + ":\n" + fieldRest,
			refused: `550 5.6.0 header refused: line 2 (":") is neither`},
		{name: "continuation without its blank", seen: "sisimai/set-of-emails#21", message: own +
			"X-Provags-ID: V03:K0\nbFCoPnjQHA37\n" + fieldRest,
			refused: `550 5.6.0 header refused: line 3 ("bFCoPnjQHA37") is neither`},
		{name: "token too long", seen: "X-MS-Exchange", message: field("X-Token: " + strings.Repeat("A", 1000)),
			refused: `550 5.6.0 header refused: line 2 ("X-Token: AAAA`},

		{name: "Latin-1 without MIME", seen: "VBA", message: own + "Subject: x\n\nGr\xfc\xdfe\n",
			has: "Content-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: 8bit"},
		{name: "UTF-8 without MIME", seen: "mailx", message: own + "Subject: x\n\nGrüße\n",
			has: "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit"},
		{name: "HTML in one line", seen: "PHPMailer/PHPMailer#314, geoffhumphrey/brewcompetitiononlineentry#1606",
			message: own + "MIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n" + html,
			has:     "Content-Transfer-Encoding: quoted-printable", otherBody: true},
		{name: "text in one line, no MIME", seen: "kohler/hotcrp#198", message: own + "\n" + html,
			has:       "Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: quoted-printable",
			otherBody: true},
		{name: "base64 in one line", seen: "DirectProject/nhin-d#228", message: own +
			"MIME-Version: 1.0\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" +
			strings.Repeat("QUJD", 500), has: "Content-Transfer-Encoding: base64", otherBody: true},
		{name: "an encoding that is none", seen: "PHP", message: own +
			"Content-Type: text/html\nContent-Transfer-Encoding: utf-8\n\n" + html,
			has: "Content-Transfer-Encoding: quoted-printable", otherBody: true},
		{name: "long line, strict", seen: "diladele/websafety#2319", listener: strict, message: own + "\nok\n" + html,
			refused: `550 5.6.0 line 4 ("<p>hallo</p><p>hallo</p><p>hallo</p><p>h") ` +
				`has more than 998 octets; shorten it`},
		{name: "signed", seen: "PHPMailer/PHPMailer#1197", message: strings.Replace(signed, "%s", "Grüße  ", 1)},
		{name: "signed, long line", seen: "jstedfast/MimeKit#107", message: strings.Replace(signed, "%s", html, 1),
			refused: `550 5.6.0 line 7 ("<p>hallo</p>`},
		{name: "dots", seen: "telnet", message: own + "\n..\n..a\n", otherBody: true}, // doubled on the way in
		{name: "NUL", seen: "SAP", message: own + "\na\x00b\n", refused: `550 5.6.0 line 3 ("a\x00b") has a NUL octet`},
	})
}
