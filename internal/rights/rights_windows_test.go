package rights

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func everybodyReads(t *testing.T, path string) {
	t.Helper()
	setList(t, path, "D:P(A;;FA;;;SY)(A;;FA;;;"+me()+")(A;;FR;;;WD)")
}

func setList(t *testing.T, path, list string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		t.Fatal(err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// Who counts as somebody else, by access control lists that no file needs to have.
func TestRead(t *testing.T) {
	const users, staff = "S-1-5-32-545", "S-1-5-21-1-2-3-1001"
	for _, c := range []struct {
		list          string
		reads, writes bool
	}{
		{"D:(A;;FA;;;SY)(A;;FA;;;BA)(A;OICIIO;FA;;;CO)(A;;FR;;;" + serviceSID(Service) + ")", false, false},
		{"D:(A;;FA;;;SY)(A;;FR;;;" + users + ")", true, false},
		{"D:(A;;GR;;;WD)", true, false},
		{"D:(A;;GA;;;" + staff + ")", true, true},
		{"D:(A;OICIIO;FA;;;" + users + ")", true, true}, // what is made below has it
		{"D:(A;;0x40000;;;" + staff + ")", false, true}, // may change the list
		{"D:(A;;0x40;;;" + staff + ")", false, true},    // may delete what is in a directory
		{"D:(A;;0x100080;;;WD)", false, false},          // sees that it is there
		{"D:(D;;FA;;;WD)(A;;FR;;;" + staff + ")", true, false},
		{"D:", false, false},
	} {
		sd, err := windows.SecurityDescriptorFromString(c.list)
		if err != nil {
			t.Fatalf("%s: %v", c.list, err)
		}
		dacl, _, err := sd.DACL()
		if err != nil {
			t.Fatalf("%s: %v", c.list, err)
		}
		var r Rights
		if err := r.read(dacl); err != nil || r.OthersRead != c.reads || r.OthersWrite != c.writes {
			t.Errorf("%s: %+v, %v", c.list, r, err)
		}
	}
}

// An entry with a condition allows what it says, one of a kind that files have not allows everybody, one that denies
// nobody.
func TestReadKinds(t *testing.T) {
	for kind, others := range map[byte]string{windows.ACCESS_ALLOWED_ACE_TYPE: "S-1-5-32-545",
		windows.ACCESS_DENIED_ACE_TYPE: "", allowedCallback: "S-1-5-32-545", allowedObject: everyone,
		allowedCallbackObject: everyone} {
		sd, err := windows.SecurityDescriptorFromString("D:(A;;FR;;;BU)")
		if err != nil {
			t.Fatal(err)
		}
		dacl, _, err := sd.DACL()
		if err != nil {
			t.Fatal(err)
		}
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, 0, &ace); err != nil {
			t.Fatal(err)
		}
		ace.Header.AceType = kind
		var r Rights
		if err := r.read(dacl); err != nil || strings.Join(r.others, " ") != others || r.OthersRead != (others != "") {
			t.Errorf("type %d: %+v, %v", kind, r, err)
		}
	}
}

// The command keeps those who need the file and names those who lose it.
func TestCommand(t *testing.T) {
	r := Rights{said: said{owner: "S-1-5-21-1-2-3-1001", others: []string{"S-1-5-32-545", "S-1-1-0"}}}
	got := r.Command("o-rwx", `C:\ProgramData\Postern\relay.toml`)
	for _, part := range []string{`icacls "C:\ProgramData\Postern\relay.toml" /inheritance:r /grant:r "*S-1-5-18:F"`,
		`"*` + serviceSID(Service) + `:R" `, `"*S-1-5-21-1-2-3-1001:F"`, `/remove:g "*S-1-5-32-545" "*S-1-1-0"`} {
		if !strings.Contains(got, part) {
			t.Errorf("%s\nhas no %s", got, part)
		}
	}
	r.IsDir = true // PowerShell takes parentheses that are not quoted for a command
	if got := r.Command("", `D:\data`); !strings.Contains(got, `"*S-1-5-18:(OI)(CI)F"`) {
		t.Error(got)
	}
}

// A directory of the service is made and, when it is there, protected; a link is refused.
func TestForService(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "service")
	for range 2 {
		if err := ForService(dir, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+".file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ForService(dir+".file", true); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
	link := object{path: dir, attributes: windows.FILE_ATTRIBUTE_DIRECTORY | windows.FILE_ATTRIBUTE_REPARSE_POINT}
	if err := link.directory(); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a link: %v", err)
	}
	junction := dir + ".link"
	if said, err := exec.Command("cmd", "/c", "mklink", "/J", junction, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if _, err := os.Lstat(junction); err != nil {
		return // Wine says that it has made one, and has not
	}
	if err := ForService(junction, true); err == nil || !strings.Contains(err.Error(), "link") {
		t.Errorf("a junction: %v", err)
	}
}

// What others own or may change is refused, by the very file that was opened.
func TestOwned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Owned(path); err != nil {
		t.Error(err)
	}
	setList(t, path, "D:P(A;;FA;;;SY)(A;;FA;;;"+me()+")(A;;FA;;;WD)")
	if err := Owned(path); err == nil || !strings.Contains(err.Error(), "icacls") {
		t.Errorf("one that everybody may change: %v", err)
	}
}
