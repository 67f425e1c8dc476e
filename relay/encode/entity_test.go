package encode

import "testing"

func TestBoundary(t *testing.T) {
	for value, want := range map[string]string{ // "": not clear
		`multipart/mixed; boundary=b`:                                         "b",
		`multipart/mixed; boundary="b c"`:                                     "b c",
		"multipart/mixed;\tBoundary = \"----=_Part_1\" ;":                     "----=_Part_1",
		`multipart/related; type=text/html; boundary=b`:                       "b",
		`multipart/related; start="<a;b=c>"; type="text/html"; boundary="b";`: "b",
		`multipart/mixed; boundary="a\"b"`:                                    `a"b`,
		`multipart/mixed; x; boundary=b`:                                      "b",
		`multipart/mixed; charset=; boundary=b`:                               "b",
		`multipart/mixed; boundary=--boundary_0_6d1e-4f`:                      "--boundary_0_6d1e-4f",
		`multipart/mixed`:                                                     "",
		`multipart/mixed; boundary=`:                                          "",
		`multipart/mixed; boundary=""`:                                        "",
		`multipart/mixed boundary=b`:                                          "",
		`multipart/mixed; boundary=----=_1`:                                   "",
		`multipart/mixed; boundary=a/b`:                                       "",
		`multipart/mixed; boundary=a b`:                                       "",
		`multipart/mixed; boundary=b (comment)`:                               "",
		`multipart/mixed; boundary="b" (comment)`:                             "",
		`multipart/mixed (boundary=a); boundary=b`:                            "",
		`multipart/mixed; (x); boundary=b`:                                    "",
		`multipart/mixed; boundary=a; boundary=b`:                             "",
		`multipart/mixed; boundary*=us-ascii''b`:                              "",
		`multipart/mixed; boundary*0=a; boundary*1=b`:                         "",
		`multipart/mixed; boundary="b`:                                        "",
		`multipart/mixed; boundary="b "`:                                      "",
		"multipart/mixed; boundary=\"b\xfc\"":                                 "",
		`multipart/mixed; x="; boundary=a"; boundary=b`:                       "b",
		`multipart/mixed; x=a"; boundary=b`:                                   "",
	} {
		got, why := boundaryOf(value)
		if got != want || (why == "") != (want != "") {
			t.Errorf("%s: %q, %q, want %q", value, got, why, want)
		}
	}
}

func TestDelimiter(t *testing.T) {
	for line, want := range map[string]delimiter{
		"--b\r\n": opens, "--b \t\r\n": opens, "--b--\r\n": closes, "--b-- \r\n": closes, "--b": opens,
		"--b1\r\n": like, "--b-\r\n": like, "--b--x\r\n": like, "--b --\r\n": like, "--b----\r\n": like,
		"-b\r\n": none, " --b\r\n": none, "--a\r\n": none, "\r\n": none,
	} {
		if got := delimits([]byte(line), "b"); got != want {
			t.Errorf("%q is %d, want %d", line, got, want)
		}
	}
}
