package textfile

import "testing"

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "secret": "secret", "\xef\xbb\xbfsecret": "secret", "\xef\xbb\xbf": "",
		"a\xef\xbb\xbfb": "a\xef\xbb\xbfb", "\x00\x01\x02\x03": "\x00\x01\x02\x03",
	} {
		if got, err := Text([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"\xff\xfeh\x00", "\xfe\xff\x00h", "h\x00o\x00", "\x00h\x00o"} {
		if got, err := Text([]byte(in)); err != ErrUTF16 {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
