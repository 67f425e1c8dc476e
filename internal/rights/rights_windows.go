package rights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Well-known accounts, by SID: their names are translated.
const (
	system         = "S-1-5-18"
	administrators = "S-1-5-32-544"
	everyone       = "S-1-1-0"
	creatorOwner   = "S-1-3-0" // in what is inherited
	ownerRights    = "S-1-3-4"
	// TrustedInstaller, who owns Windows.
	installer = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
)

// What of an access mask lets somebody read content, and what change or replace it.
const (
	reads  = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL
	writes = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.DELETE | windows.WRITE_DAC |
		windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL | deleteChild
	deleteChild = 0x40 // FILE_DELETE_CHILD
)

// Types of entries beside ACCESS_ALLOWED_ACE that allow something.
const (
	allowedCompound       = 4
	allowedObject         = 5
	allowedCallback       = 9
	allowedCallbackObject = 11
)

// said is what a person is told, and the accounts that a command names, by SID.
type said struct {
	text   string
	owner  string
	others []string
}

// String says what others may: `OFFICE\staff may read`.
func (s said) String() string { return s.text }

// Of looks at a file or directory.
func Of(path string) (Rights, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Rights{}, err
	}
	return OfInfo(path, info)
}

// OfInfo is Of for who has looked already.
func OfInfo(path string, info os.FileInfo) (Rights, error) {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, ownerAndList)
	if err != nil {
		return Rights{}, &fs.PathError{Op: readList, Path: path, Err: err}
	}
	return of(path, info.IsDir(), sd)
}

const (
	ownerAndList = windows.OWNER_SECURITY_INFORMATION | windows.DACL_SECURITY_INFORMATION
	readList     = "read the access control list of"
)

// of reads the security descriptor of a file or directory.
func of(path string, isDir bool, sd *windows.SECURITY_DESCRIPTOR) (Rights, error) {
	r := Rights{IsDir: isDir}
	owner, _, err := sd.Owner()
	if err != nil {
		return r, &fs.PathError{Op: "find the owner of", Path: path, Err: err}
	}
	r.owner = owner.String()
	dacl, _, err := sd.DACL()
	switch {
	case errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && dacl == nil:
		r.add(everyone, windows.GENERIC_ALL) // no list: everybody may do everything
	case err != nil:
		return r, &fs.PathError{Op: readList, Path: path, Err: err}
	default:
		err = r.read(dacl)
	}
	r.AnyoneReads, r.AnyoneWrites = r.OthersRead, r.OthersWrite
	r.Open = r.OthersRead || r.OthersWrite
	return r, err
}

// read takes every entry that allows something at its word: what others deny is not subtracted. Entries that only what
// is made below a directory inherits count too.
func (r *Rights) read(dacl *windows.ACL) error {
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return fmt.Errorf("read an access control list: %w", err)
		}
		switch ace.Header.AceType {
		case windows.ACCESS_ALLOWED_ACE_TYPE, allowedCallback: // whose condition may hold
			r.add((*windows.SID)(unsafe.Pointer(&ace.SidStart)).String(), ace.Mask)
		case allowedCompound, allowedObject, allowedCallbackObject: // files have none; if one has, we know not for whom
			r.add(everyone, ace.Mask)
		}
	}
	return nil
}

// add counts what an entry allows somebody.
func (r *Rights) add(sid string, mask windows.ACCESS_MASK) {
	may := ""
	switch {
	case slices.Contains(r.trusted(), sid):
		return
	case mask&writes != 0 && mask&reads != 0:
		may = "read and write"
	case mask&writes != 0:
		may = "write"
	case mask&reads != 0:
		may = "read"
	default:
		return
	}
	r.OthersRead, r.OthersWrite = r.OthersRead || mask&reads != 0, r.OthersWrite || mask&writes != 0
	if !slices.Contains(r.others, sid) {
		r.others = append(r.others, sid)
	}
	if r.text != "" {
		r.text += ", "
	}
	r.text += nameOf(sid) + " may " + may
}

func (r *Rights) trusted() []string {
	return []string{system, administrators, creatorOwner, ownerRights, installer, serviceSID(Service), r.owner, me()}
}

// me is the SID of the user that we run as.
func me() string {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return ""
	}
	return u.User.Sid.String()
}

// Me names the user that we run as.
func Me() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return nameOf(me())
}

func nameOf(text string) string {
	sid, err := windows.StringToSid(text)
	if err != nil {
		return text
	}
	account, domain, _, err := sid.LookupAccount("")
	switch {
	case err != nil:
		return text
	case domain == "":
		return account
	}
	return domain + `\` + account
}

// Trusted reports whether the owner of a file or directory is one who runs this machine, the service, or we.
func (r Rights) Trusted() bool {
	return slices.Contains([]string{system, administrators, installer, serviceSID(Service), me()}, r.owner)
}

// Owner is the account that a file belongs to.
func (r Rights) Owner() string { return nameOf(r.owner) }

// Command is the one that takes rights away from all but those who need them; chmod is for other systems. PowerShell
// would run what is in parentheses, so each grant is quoted.
func (r Rights) Command(_, path string) string {
	inherited, service := "", "R"
	if r.IsDir {
		inherited, service = "(OI)(CI)", "M"
	}
	command := fmt.Sprintf(`icacls "%s" /inheritance:r /grant:r`, path)
	grant := func(sid, may string) { command += fmt.Sprintf(` "*%s:%s%s"`, sid, inherited, may) }
	grant(system, "F")
	grant(administrators, "F")
	grant(serviceSID(Service), service)
	if !slices.Contains([]string{system, administrators, serviceSID(Service)}, r.owner) {
		grant(r.owner, "F")
	}
	for i, sid := range r.others {
		if i == 0 {
			command += " /remove:g"
		}
		command += ` "*` + sid + `"`
	}
	return command
}

// private is a security descriptor that inherits nothing: SYSTEM and the administrators may do all, the service what
// its mask says, and we too, unless we are one of them.
func private(inherit, service string) (*windows.SECURITY_DESCRIPTOR, error) {
	list := fmt.Sprintf("D:P(A;%[1]s;FA;;;SY)(A;%[1]s;FA;;;BA)(A;%[1]s;%[2]s;;;%[3]s)", inherit, service,
		serviceSID(Service))
	if sid := me(); sid != "" && sid != serviceSID(Service) && sid != system && !Administrator() {
		list += fmt.Sprintf("(A;%s;FA;;;%s)", inherit, sid)
	}
	return windows.SecurityDescriptorFromString(list)
}

// Administrator reports that we act as one of the administrators: "Run as administrator".
func Administrator() bool {
	sid, err := windows.StringToSid(administrators)
	if err != nil {
		return false
	}
	is, err := windows.Token(0).IsMember(sid)
	return err == nil && is
}

const (
	forAll  = "OICI"     // what is below inherits it
	changes = "0x1301bf" // read, write, run and delete: what icacls calls M
	onlySee = "0x1200a9" // read and run: RX
)

// Mkdir makes a directory for us and the service alone. Errors are those of os.Mkdir.
func Mkdir(dir string) error { return mkdir(dir, changes) }

func mkdir(dir, service string) error {
	attributes, err := attributesOf(forAll, service)
	if err != nil {
		return err
	}
	path, err := windows.UTF16PtrFromString(dir)
	if err == nil {
		err = windows.CreateDirectory(path, attributes)
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// MkdirAll is Mkdir with what is missing above; one that is there stays as it is.
func MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	if err := Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Create makes a file for us alone, to write, which the service may read. Errors are those of os.OpenFile: fs.ErrExist.
func Create(path string) (*os.File, error) {
	attributes, err := attributesOf("", onlySee)
	if err != nil {
		return nil, err
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE|windows.SYNCHRONIZE, windows.FILE_SHARE_READ, attributes,
		windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

func attributesOf(inherit, service string) (*windows.SecurityAttributes, error) {
	sd, err := private(inherit, service)
	if err != nil {
		return nil, fmt.Errorf("make an access control list: %w", err)
	}
	return &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})),
		SecurityDescriptor: sd}, nil
}

// ForService makes a directory of the service, which it may only read, or with writable change too, or protects one
// that is there. It takes an administrator, whose it is then. Refused are a link, one that belongs to somebody
// else or lies below what does, and, not writable, one with something in it that others own or may change.
func ForService(dir string, writable bool) error {
	service := onlySee
	if writable {
		service = changes
	}
	if err := parentsTrusted(dir); err != nil {
		return err
	}
	if err := mkdir(dir, service); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	o, err := openObject(dir, windows.READ_CONTROL|windows.WRITE_DAC|windows.WRITE_OWNER|windows.FILE_LIST_DIRECTORY)
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.directory(); err != nil {
		return err
	}
	switch r, err := o.rights(); {
	case err != nil:
		return err
	case !r.Trusted():
		return fmt.Errorf("%s belongs to %s, who is no administrator: look at what is in it and move it away", dir,
			r.Owner())
	}
	if err := o.protect(service); err != nil || writable {
		return err
	}
	return contentTrusted(dir)
}

// Owned returns an error that says what to do where a file or directory belongs to, or can be changed by, others than
// those who run this machine. A link is looked at itself, not where it leads.
func Owned(path string) error {
	o, err := openObject(path, windows.READ_CONTROL)
	if err != nil {
		return err
	}
	defer o.close()
	r, err := o.rights()
	switch {
	case err != nil:
		return err
	case !r.Trusted():
		return fmt.Errorf("%s belongs to %s, and not to the administrators: look at it, then move it away, or run: "+
			`icacls "%s" /setowner *%s`, path, r.Owner(), path, administrators)
	case r.OthersWrite:
		return fmt.Errorf("%s can be changed by others (%s), run: %s", path, r, r.Command("", path))
	}
	return nil
}

// contentTrusted looks at what is directly in a directory that others cannot change any more.
func contentTrusted(dir string) error {
	names, err := os.ReadDir(dir)
	for _, d := range names {
		err = errors.Join(err, Owned(filepath.Join(dir, d.Name())))
	}
	return err
}

// parentsTrusted refuses a path where another owns one of the directories above, and may put a link in its place.
func parentsTrusted(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		o, err := openObject(dir, windows.READ_CONTROL)
		if err != nil {
			return err
		}
		r, err := o.rights()
		o.close()
		if err == nil && !r.Trusted() {
			err = fmt.Errorf("%s, above %s, belongs to %s, who is no administrator: choose another place", dir, path,
				r.Owner())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object is a file or directory, or a link to one, that is open: what is changed is what was looked at, whatever its
// name leads to meanwhile.
type object struct {
	path       string
	handle     windows.Handle
	attributes uint32
}

func openObject(path string, access uint32) (*object, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	const anyShare = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, access|windows.FILE_READ_ATTRIBUTES|windows.SYNCHRONIZE, anyShare, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		windows.CloseHandle(h)
		return nil, &fs.PathError{Op: "look at", Path: path, Err: err}
	}
	return &object{path, h, info.FileAttributes}, nil
}

func (o *object) close() { windows.CloseHandle(o.handle) }

// directory returns an error if it is none: a file, or a link.
func (o *object) directory() error {
	switch {
	case o.attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0:
		return fmt.Errorf("%s is a link to elsewhere: name the directory itself, or remove the link", o.path)
	case o.attributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0:
		return fmt.Errorf("%s is not a directory: move it away", o.path)
	}
	return nil
}

func (o *object) rights() (Rights, error) {
	sd, err := windows.GetSecurityInfo(o.handle, windows.SE_FILE_OBJECT, ownerAndList)
	if err != nil {
		return Rights{}, &fs.PathError{Op: readList, Path: o.path, Err: err}
	}
	return of(o.path, o.attributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0, sd)
}

// protect gives it to the administrators, with a list that inherits nothing, and that what is in it inherits.
func (o *object) protect(service string) error {
	sd, err := private(forAll, service)
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	owner, err := windows.StringToSid(administrators)
	if err != nil {
		return err
	}
	err = windows.SetSecurityInfo(o.handle, windows.SE_FILE_OBJECT,
		ownerAndList|windows.PROTECTED_DACL_SECURITY_INFORMATION, owner, nil, dacl, nil)
	if err != nil {
		return &fs.PathError{Op: "protect", Path: o.path, Err: err}
	}
	return nil
}
