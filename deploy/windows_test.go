package deploy

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testkit"
)

// programOfMSI is where msiextract puts the program, below its directory.
const programOfMSI = "Postern/postern.exe"

// keepProgram takes the program for Windows out of the first package, so that it is built once.
func keepProgram(dir string) error {
	msi, err := filepath.Glob(dir + "/1/*.msi")
	if err != nil || len(msi) == 0 {
		return err // the tests of it say why there is none
	}
	if said, err := command("msiextract", "-C", dir+"/msi", msi[0]).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(said)))
	}
	return os.Link(filepath.Join(dir, "msi", programOfMSI), filepath.Join(dir, "postern-amd64.exe"))
}

// msi is the package for Windows, of version 1 (1.0.0) or 2 (1.1.0).
func msi(t *testing.T, version string) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the package for Windows is made with that of amd64")
	}
	for _, tool := range []string{"wixl", "msibuild", "msiinfo", "msiextract"} {
		testkit.Need(t, tool)
	}
	return packageOf(t, version, "msi")
}

// rows are those of a table of a package, by their first column.
func rows(t *testing.T, msi, table string) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for i, line := range strings.Split(run(t, "msiinfo", "export", msi, table), "\n") {
		if fields := strings.Split(strings.TrimRight(line, "\r"), "\t"); i > 2 && len(fields) > 1 {
			all[fields[0]] = fields
		}
	}
	return all
}

// What is installed is the program and what is to be read, and the path to it; nothing in ProgramData belongs to the
// package, so that no uninstall takes mail.
func TestMSIFiles(t *testing.T) {
	file := msi(t, "1")
	out := t.TempDir()
	run(t, "msiextract", "-C", out, file)
	program, err := os.ReadFile(filepath.Join(out, programOfMSI))
	if err != nil || !bytes.HasPrefix(program, []byte("MZ")) {
		t.Fatalf("%.2q, %v", program, err)
	}
	example, err := os.ReadFile(filepath.Join(out, filepath.Dir(programOfMSI), "relay.example.toml"))
	ours, err2 := os.ReadFile("../relay.toml")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(example, bytes.ReplaceAll(ours, []byte("\n"), []byte("\r\n"))) {
		t.Error("relay.example.toml is not relay.toml with the line ends of Windows")
	}
	if paths := rows(t, file, "Environment"); paths["PATH"][2] != "[~];[INSTALLDIR]" {
		t.Errorf("PATH: %q", paths)
	}
	if said := run(t, "msiinfo", "export", file, "Directory"); strings.Contains(said, "AppData") {
		t.Errorf("it has a directory of data:\n%s", said)
	}
	if info, err := exec.Command("go", "version", "-m", filepath.Join(out, programOfMSI)).Output(); err != nil ||
		!strings.Contains(string(info), "GOOS=windows") {
		t.Errorf("%s, %v", info, err)
	}
}

// A newer version takes the place of an older one, the old one first, and the service stays; only an uninstall that is
// no upgrade removes it.
func TestMSIUpgrades(t *testing.T) {
	first, second := msi(t, "1"), msi(t, "2")
	a, b := rows(t, first, "Property"), rows(t, second, "Property")
	if a["ProductVersion"][1] != "1.0.0" || b["ProductVersion"][1] != "1.1.0" ||
		a["UpgradeCode"][1] != b["UpgradeCode"][1] || a["ProductCode"][1] == b["ProductCode"][1] {
		t.Errorf("%q\n%q", a, b)
	}
	older := slices.IndexFunc(upgrades(t, second), func(f []string) bool {
		return f[1] == "0.0.0" && f[2] == "1.1.1" && f[6] == "OLDERFOUND"
	})
	if older < 0 {
		t.Errorf("replaces %q", upgrades(t, second))
	}
	steps := rows(t, second, "InstallExecuteSequence")
	at := func(action string) int {
		n, err := strconv.Atoi(steps[action][2])
		if err != nil {
			t.Fatalf("%s: %q", action, steps[action])
		}
		return n
	}
	order := []int{at("InstallInitialize"), at("RemoveExistingProducts"), at("StopServices"), at("RemoveService"),
		at("RemoveFiles"), at("InstallFiles"), at("UndoInstallService"), at("InstallService"), at("StartAgain"),
		at("InstallFinalize")}
	if !slices.IsSorted(order) || order[1] != order[0]+1 {
		t.Errorf("steps in the order %d", order)
	}
	if when := steps["RemoveService"][1]; when != `(REMOVE="ALL") AND NOT UPGRADINGPRODUCTCODE` {
		t.Errorf("the service is removed when %s", when)
	}
	for action, does := range map[string]string{"InstallService": "service install", "StartAgain": "service start",
		"RemoveService": "service remove", "UndoInstallService": "service remove"} {
		row := rows(t, second, "CustomAction")[action]
		kind, err := strconv.Atoi(row[1])
		if err != nil || kind&0xC12 != 0xC12 || row[2] != "postern.exe" || row[3] != does { // deferred, as SYSTEM, ours
			t.Errorf("%s: %q", action, row)
		}
		if rollback := kind&0x100 != 0; rollback != (action == "UndoInstallService") {
			t.Errorf("%s is for a rollback: %v", action, rollback)
		}
	}
}

// upgrades are the rows of the table of that name: its first column is the same in all.
func upgrades(t *testing.T, msi string) (all [][]string) {
	t.Helper()
	for _, line := range strings.Split(run(t, "msiinfo", "export", msi, "Upgrade"), "\n") {
		if f := strings.Split(strings.TrimRight(line, "\r"), "\t"); len(f) == 7 {
			all = append(all, f)
		}
	}
	return all
}

// It needs a Windows that has what the program uses, which Windows Installer's own properties do not say of any that is
// newer than 8.1.
func TestMSINeeds(t *testing.T) {
	file := msi(t, "1")
	if search := rows(t, file, "RegLocator")["BuildOfWindows"]; len(search) < 5 || search[1] != "2" ||
		search[3] != "CurrentBuildNumber" || search[4] != "18" { // HKEY_LOCAL_MACHINE, raw, of 64 bit
		t.Errorf("searches %q", search)
	}
	if _, needs := rows(t, file, "LaunchCondition")["Installed OR (VersionNT64 AND BUILDOFWINDOWS >= 17763)"]; !needs {
		t.Errorf("needs %q", rows(t, file, "LaunchCondition"))
	}
	if secure := rows(t, file, "Property")["SecureCustomProperties"]; !strings.Contains(secure[1], "BUILDOFWINDOWS") {
		t.Errorf("the installation is told %q", secure)
	}
}
