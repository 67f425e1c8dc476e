package mail

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// TestNamesThatShowAnAddress: whatever way a display name shows ceo@bank.example, it is judged.
func TestNamesThatShowAnAddress(t *testing.T) {
	var names []string
	add := func(list ...string) { names = append(names, list...) }
	for _, invisible := range []string{"\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u200e", "\u200f",
		"\u061c", "\u034f", "\u180e",
		"\u2061", "\u2063", "\ufe0f", "\ufe00", "\u115f", "\u3164", "\uffa0", "\u2800", "\U000e0020", "\U000e0101",
		"\u17b4", "\ufff9"} {
		add(`"ceo`+invisible+`@bank.example"`, `"ceo@`+invisible+`bank.example"`,
			`"ceo@bank`+invisible+`.`+invisible+`example"`)
	}
	for _, at := range []string{"\uff20", "\ufe6b", "\u24d0", "a\u20dd"} {
		add(`"ceo` + at + `bank.example"`)
	}
	for _, dot := range []string{"\u3002", "\uff0e", "\uff61", "\u2024", "\ufe52", "\u00b7", "\u2027", "\u30fb",
		"\u06d4", "\u0660", "\ua4f8", "\u0701", "\u2022"} {
		add(`"ceo@bank` + dot + `example"`)
	}
	add(`"ceo@"bank.example`, `"ceo@" bank.example`, `ceo "@bank.example"`, `"ceo" "@bank.example"`,
		`ceo"@"bank.example`, `"ceo" "@" "bank.example"`,
		`"ceo@bank" ".example"`, `"ceo@bank". "example"`, `"ceo" @bank.example`, `ceo @ bank.example`,
		`"ceo @ bank.example"`, `"ceo@ bank.example"`,
		`"ceo\@bank.example"`, `"c\eo@b\ank.example"`, `"\"ceo\"@bank.example"`, `"'ceo'@bank.example"`,
		`"ceo@'bank.example'"`, `"<ceo@bank.example>"`,
		`"(ceo@bank.example)"`, `Boss (ceo@bank.example)`, `Boss ("ceo" @bank.example)`, `"mailto:ceo@bank.example"`,
		`"Boss,ceo@bank.example"`,
		`"ceo@bank.example.1"`, `"ceo@bank.example.2.0"`, `"ceo@bank.example."`, "\"ceo@bank.example\u2026\"",
		`"ceo@[192.0.2.1]"`, `"ceo@[IPv6:2001:db8::1]"`, `"ceo@192.0.2.1"`, `"x" "ceo" "@bank.example" "y"`,
		"\"\u00abceo\u00bb@bank.example\"", "\"ceo\u201d@bank.example\"", "\"(ceo)@bank.example\"",
		"\"\uff43\uff45\uff4f@\uff42\uff41\uff4e\uff4b.example\"",
		"\"\U0001d41c\U0001d41e\U0001d428@bank.example\"", "\"ceo@b\u0430nk.example\"", "\"ceo@bank.ex\u0301ample\"",
		"\"\U0001f451@bank.example\"", "ceo@\u00a0bank.example",
		"\"ceo\u3000@bank.example\"", "\"ceo@bank.example@example.com\"", "\"me@example.com ceo@bank.example\"",
		"\"me@example.com .bank.example\"", `"@bank.example, ceo"`, `"ceo(x)@bank.example"`, `"ceo[x]@bank.example"`,
		`"ceo@bank\\.example"`, `"ceo@bank(x).example"`, "\"`@bank.example\"")
	for _, encode := range []func(string) (string, string){
		func(s string) (string, string) { return "utf-8", s },
		func(s string) (string, string) {
			o, _ := japanese.ISO2022JP.NewEncoder().String(s)
			return "iso-2022-jp", o
		},
		func(s string) (string, string) {
			o, _ := japanese.ShiftJIS.NewEncoder().String(s)
			return "Shift_JIS", o
		},
		func(s string) (string, string) { o, _ := japanese.EUCJP.NewEncoder().String(s); return "euc-jp", o },
		func(s string) (string, string) {
			o, _ := korean.EUCKR.NewEncoder().String(s)
			return "ks_c_5601-1987", o
		},
		func(s string) (string, string) {
			o, _ := traditionalchinese.Big5.NewEncoder().String(s)
			return "big5", o
		},
		func(s string) (string, string) {
			o, _ := simplifiedchinese.GBK.NewEncoder().String(s)
			return "gb2312*zh", o
		},
	} {
		charset, wide := encode("ceo\uff20bank.example")
		word := fmt.Sprintf("=?%s?B?%s?=", charset, base64.StdEncoding.EncodeToString([]byte(wide)))
		add(word, `"`+word+`"`, "x"+word)
	}
	add("=?utf-8?Q?ceo=40bank.example?=", "=?utf-8?Q?ceo=40?= =?utf-8?Q?bank.example?=",
		"=?utf-8?Q?ceo?= =?iso-8859-1?Q?=40bank.example?=", "=?utf-8?Q?ceo=40?= bank.example",
		"ceo =?utf-8?Q?=40bank.example?=", "ceo=?utf-8?Q?=40?=bank.example", `"ceo=?utf-8?Q?=40?=bank.example"`,
		"=?utf-8?Q?ceo=EF=BC?= =?utf-8?Q?=A0bank.example?=",
		"=?koi8-r?Q?ceo=40bank.example?=", "=?utf-8?Q?=22ceo=22=40bank.example=2C?=",
		"=?utf-8?Q?=3Cceo=40bank.example=3E?=", "=?us-ascii*en?q?ceo=40bank.example?=",
		"=?utf-8?B?Y2VvQGJhbmsuZXhhbXBsZQ?=", "=?utf-8?Q?ceo@bank.example?=", "=?utf-8?Q?ceo =40 bank.example?=",
		"=?utf-8?Q?ceo?=@bank.example")
	for _, name := range names {
		if a, err := judge(t, "From: "+name+" <me@example.com>\n\n"); err == nil && len(a.Named) == 0 {
			t.Errorf("%q is taken for a plain name", name)
		}
	}
	if len(names) < 140 {
		t.Errorf("%d names", len(names))
	}
}

// TestNamesThatShowNone: what people and programs are called is no address.
func TestNamesThatShowNone(t *testing.T) {
	for _, name := range []string{
		`"Ann @ Home"`, `"Bob@Acme"`, `"@ann.smith"`, `"Ann (@ann.smith)"`, `"me@example.com"`, `"'me@example.com'"`,
		`"Me (me@example.com)"`, `"me@example.com. Ann"`,
		`"Team 2@1.99"`, "\"Catal\u00e0 l\u00b7l\"", "\"M\u00fcller \u2022 Vertrieb\"", `"a.b.example"`,
		"=?utf-8?Q?Ann_=40_Home?=", "\"Ann \U0001f469\u200d\U0001f527\"", "\"\u05e9\u05dc\u05d5\u05dd\u200f\"",
	} {
		if a, err := judge(t, "From: "+name+" <me@example.com>\n\n"); err != nil || len(a.Named) > 0 {
			t.Errorf("%s: %v, %v", name, a.Named, err)
		}
	}
}

func TestShownAddressesAreBounded(t *testing.T) {
	long := strings.Repeat("a", 10000)
	for _, name := range []string{long + "@bank.example", "ceo@" + long + ".bank.example", "ceo@bank." + long} {
		found := addressesIn(name)
		if len(found) != 1 || len(found[0].String()) > 1000 {
			t.Errorf("%d octets: %d addresses", len(name), len(found))
		}
	}
}

func TestAddressesInCost(t *testing.T) {
	for _, piece := range []string{"@", "a@b.", "a @ b . ", "\"@", "]@", "@[", "\uff20", "\u200b", "a\u0301"} {
		before := processorTime(t)
		addressesIn(strings.Repeat(piece, 64<<10/len(piece)))
		if took := processorTime(t) - before; took.Seconds() > 1 {
			t.Errorf("%q: %v of processor time", piece, took)
		}
	}
}
