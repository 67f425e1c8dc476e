package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
)

func TestChosenPasswords(t *testing.T) {
	hash, err := HashChosen("correct horse battery")
	wantOK(t, err)
	if !strings.HasPrefix(string(hash), "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash = %q, want a PHC string with its cost", string(hash))
	}
	for password, want := range map[string]bool{"correct horse battery": true, "correct horse batter": false, "": false,
		"Correct horse battery": false, long(300): false} {
		if ok, err := verify(hash, nil, password); ok != want || err != nil {
			t.Errorf("Verify(%q) = %v, %v", password, ok, err)
		}
	}
	if again, _ := HashChosen("correct horse battery"); again == hash {
		t.Error("two hashes of one password are equal: there is no salt")
	}
	for _, bad := range []string{"", long(257), "a\x00b", "a\nb", "a\xff"} {
		if _, err := HashChosen(bad); err == nil {
			t.Errorf("%q was hashed, and could never be used", bad)
		}
	}
}

// TestCostTravelsWithTheHash: hashes of an earlier cost stay good.
func TestCostTravelsWithTheHash(t *testing.T) {
	old := params{memory: 64, time: 1, threads: 2}
	salt := []byte("a salt of before")
	hash := encodeChosen(old, salt, realArgon([]byte("right"), salt, old))
	if ok, err := verify(hash, nil, "right"); !ok || err != nil {
		t.Errorf("Verify = %v, %v", ok, err)
	}
}

func TestDamagedHashes(t *testing.T) {
	good, _ := HashChosen("right")
	parts := strings.Split(string(good), "$")
	with := func(i int, s string) Secret {
		p := append([]string{}, parts...)
		p[i] = s
		return Secret(strings.Join(p, "$"))
	}
	for _, hash := range []Secret{
		"", "x", "$argon2id$v=19$", "$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAAA$AAAA",
		with(2, "v=16"), with(3, "m=1,t=2,p=1"), with(3, "m=4194304,t=2,p=1"), with(3, "m=19456,t=0,p=1"),
		with(3, "m=19456,t=1000,p=1"),
		with(3, "m=19456,t=2,p=0"), with(3, "m=19456"), with(4, "!"), with(4, ""), with(5, ""), with(5, "AAAA"),
		with(5, "===="), with(5, parts[5]+"$x"),
		"$postern-hmac-sha256$", "$postern-hmac-sha256$AAAA", "$postern-hmac-sha256$!",
	} {
		if ok, err := verify(hash, testPepper, "right"); ok || err == nil {
			t.Errorf("Verify with hash %q = %v, %v; want an error", string(hash), ok, err)
		}
	}
}

func TestGeneratedPasswords(t *testing.T) {
	seen := map[string]bool{}
	letters := map[rune]int{}
	for range 2000 {
		p := GeneratePassword()
		if len(p) > 31 || seen[p] {
			t.Fatalf("%q is too long or was made before", p)
		}
		seen[p] = true
		n := 0
		for _, r := range p {
			if r == '-' {
				continue
			}
			if !strings.ContainsRune(alphabet, r) || strings.ContainsRune("ilo01", r) {
				t.Fatalf("%q has %q", p, r)
			}
			letters[r]++
			n++
		}
		if bits := float64(n) * math.Log2(float64(len(alphabet))); bits < 128 {
			t.Fatalf("%q has %.1f bits", p, bits)
		}
	}
	want := 2000 * generatedLength / len(alphabet)
	for _, r := range alphabet {
		if n := letters[r]; n < want*8/10 || n > want*12/10 {
			t.Errorf("%q came %d times, want about %d", r, n, want)
		}
	}
	p := GeneratePassword()
	hash := HashGenerated(testPepper, p)
	if !IsGenerated(hash) {
		t.Error("the hash does not say what it is")
	}
	for typed, want := range map[string]bool{
		p: true, strings.ToUpper(p): true, strings.ReplaceAll(p, "-", ""): true, strings.ReplaceAll(p, "-", " "): true,
		p + "a": false, p[1:]: false, "": false, "-": false,
	} {
		if ok, err := verify(hash, testPepper, typed); ok != want || err != nil {
			t.Errorf("Verify(%q) = %v, %v", typed, ok, err)
		}
	}
	if ok, _ := verify(hash, []byte("another installation"), p); ok {
		t.Error("the pepper does not count")
	}
}

func TestSecret(t *testing.T) {
	const plain = "hunter2"
	u := User{Login: "anna", Hash: plain}
	type deep struct {
		U User
		M map[string]Secret
		S []Secret
	}
	var out bytes.Buffer
	for _, v := range []any{Secret(plain), u, &u, deep{u, map[string]Secret{"a": plain}, []Secret{plain}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%e", "%8.3s"} {
			fmt.Fprintf(&out, verb, v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	hex := fmt.Sprintf("%x", plain)
	for _, leak := range []string{plain, hex, strings.ToUpper(hex)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q was printed", leak)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing stands in its place")
	}
	if Secret("").String() != "" || string(Secret(plain)) != plain {
		t.Error("an empty secret shows, or a conversion does not")
	}
}

func TestLogins(t *testing.T) {
	for in, want := range map[string]string{
		"anna": "anna", "Anna@Example.COM": "anna@example.com", "Jörg": "jörg", "JÖRG": "jÖrg", "\u212a": "\u212a",
		"a b": "a b",
	} {
		if got, ok := NormalizeLogin(in); got != want || !ok {
			t.Errorf("NormalizeLogin(%q) = %q, %v", in, got, ok)
		}
	}
	for _, bad := range []string{"", long(257), "a\x00", "a\x7f", "a\u0085", "a\u202e", "a\u2028", "a\xff", "a\tb"} {
		if got, ok := NormalizeLogin(bad); ok {
			t.Errorf("NormalizeLogin(%q) = %q", bad, got)
		}
	}
	for in, want := range map[string]string{"Anna": "anna", "scanner-2f": "scanner-2f",
		"anna+x@example.com": "anna+x@example.com", "jörg": "jörg"} {
		if got, err := CheckLogin(in); got != want || err != nil {
			t.Errorf("CheckLogin(%q) = %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", long(257), "a b", "-a", "@staff", "scanner-*", "{login}", "a,b", "a\"b", "<a@b>",
		"a\nb", "!a", "a;b"} {
		if got, err := CheckLogin(bad); err == nil {
			t.Errorf("CheckLogin(%q) = %q", bad, got)
		}
	}
}

func TestAdvice(t *testing.T) {
	for _, c := range []struct{ login, password, want string }{
		{"anna", "Anna", "is the login"}, {"anna", "short", "fewer than 10"}, {"anna", "ünïcödéß", "fewer than 10"},
		{"anna", "long enough", ""},
		{"anna", "großes Geheimnis", "beyond ASCII"}, {"anna", "a very long pass phrase of many words",
			"31 characters"}, {"anna", `back\slash and more`, "cannot type"},
		{"anna", "blank at the end ", "a blank"},
	} {
		if got := AdviseOn(c.login, c.password); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("AdviseOn(%q, %q) = %q", c.login, c.password, got)
		}
	}
}

// The same password in the forms in which keyboards and systems write it (RFC 8265 §4.2): composed and decomposed
// letters, other blanks. Letters that merely look alike stay apart.
func TestPreparedPasswords(t *testing.T) {
	composed, decomposed := "Schl\u00fcssel\u00a0Nr. 5", "Schlu\u0308ssel Nr. 5"
	hash, err := HashChosen(composed)
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{
		composed: true, decomposed: true, "Schl\u00fcssel\u3000Nr. 5": true,
		"Schlussel Nr. 5": false, "schl\u00fcssel Nr. 5": false, "Schl\u00fcssel Nr. \uff15": false, "": false,
	} {
		if ok, err := verify(hash, nil, password); ok != want || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
	if got := Prepare("\tas it is\xff"); got != "\tas it is\xff" {
		t.Errorf("%q", got)
	}
}

// A device keeps 20 characters of a password, of letters and digits that nobody confuses; that is enough not to be
// guessed offline.
func TestDevicePasswords(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 {
		p := GenerateDevicePassword()
		if len(p) != DevicePasswordLength || len(p) > 20 || strings.Trim(p, alphabet) != "" || seen[p] {
			t.Fatalf("%q", p)
		}
		seen[p] = true
	}
	if bits := DevicePasswordLength * math.Log2(float64(len(alphabet))); bits < 95 {
		t.Errorf("%.1f bits", bits)
	}
	p := GenerateDevicePassword()
	hash := HashGenerated(testPepper, p)
	for typed, want := range map[string]bool{p: true, strings.ToUpper(p): true, p[:10] + " " + p[10:]: true,
		p[:16]: false, p + "a": false} {
		if ok, err := verify(hash, testPepper, typed); ok != want || err != nil || !IsGenerated(hash) {
			t.Errorf("Verify(%q) = %v, %v", typed, ok, err)
		}
	}
	if AdviseOn("scanner", p) != "" {
		t.Errorf("%q is not what devices take: %s", p, AdviseOn("scanner", p))
	}
}

// verify reports whether a password belongs to a hash. An error means that the hash cannot be used.
func verify(hash Secret, pepper []byte, password string) (bool, error) {
	if IsGenerated(hash) {
		return verifyGenerated(hash, pepper, password)
	}
	return verifyChosen(realArgon, hash, Prepare(password))
}
