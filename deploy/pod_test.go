//go:build unix

package deploy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/bench/sink"
	"postern/internal/testkit"
)

// pod is what the test takes from the chart: how the container runs, is probed, and what is mounted.
type pod struct {
	SecurityContext struct {
		RunAsUser, RunAsGroup, FSGroup int
		Sysctls                        []struct{ Name, Value string }
	}
	Containers []struct {
		Args            []string
		SecurityContext struct {
			ReadOnlyRootFilesystem, AllowPrivilegeEscalation bool
			Capabilities                                     struct{ Drop []string }
		}
		ReadinessProbe, LivenessProbe probe
		VolumeMounts                  []struct {
			Name, MountPath string
			ReadOnly        bool
		}
	}
	Volumes []struct {
		Name      string
		ConfigMap *struct{ DefaultMode os.FileMode }
		Secret    *struct{ DefaultMode os.FileMode }
	}
}

type probe struct{ HTTPGet struct{ Path, Scheme string } }

func renderedPod(t *testing.T, values string) (pod, string) {
	t.Helper()
	var set struct {
		Spec struct{ Template struct{ Spec pod } }
	}
	var config struct{ Data map[string]string }
	for kind, into := range map[string]any{"StatefulSet": &set, "ConfigMap": &config} {
		if err := json.Unmarshal(rendered(t, values, kind)[0], into); err != nil {
			t.Fatal(err)
		}
	}
	return set.Spec.Template.Spec, config.Data["relay.toml"]
}

// node is a machine that runs a pod as the kubelet would: with runc, on the image's own root and settings.
type node struct {
	t                  *testing.T
	pod                pod
	bundle, runc, root string
	spec               map[string]any // of the runtime
	volumes            map[string]string
	id                 string
	password           string // of anna@example.com
}

func newNode(t *testing.T, p pod, image string) *node {
	t.Helper()
	testkit.NeedRoot(t)
	n := &node{t: t, pod: p, bundle: filepath.Join(t.TempDir(), "bundle"), runc: testkit.Need(t, "runc"),
		root: t.TempDir(), volumes: map[string]string{}}
	layout := "oci:" + filepath.Join(t.TempDir(), "layout") + ":postern"
	run(t, testkit.Need(t, "skopeo"), "copy", "-q", "oci-archive:"+image, layout)
	run(t, testkit.Need(t, "umoci"), "unpack", "--image", strings.TrimPrefix(layout, "oci:"), n.bundle)
	if err := json.Unmarshal([]byte(read(t, filepath.Join(n.bundle, "config.json"))), &n.spec); err != nil {
		t.Fatal(err)
	}
	for _, v := range p.Volumes {
		n.volumes[v.Name] = t.TempDir()
	}
	n.volumes["data"] = t.TempDir()
	return n
}

// publish writes the files of a volume as the kubelet does: links to a directory behind one more link, which it swaps.
func (n *node) publish(volume string, files map[string]string) {
	n.t.Helper()
	mode := os.FileMode(0o644)
	for _, v := range n.pod.Volumes {
		if v.Name == volume && v.ConfigMap != nil {
			mode = v.ConfigMap.DefaultMode
		} else if v.Name == volume {
			mode = v.Secret.DefaultMode
		}
	}
	n.publishMode(volume, files, mode)
}

func (n *node) publishMode(volume string, files map[string]string, mode os.FileMode) {
	n.t.Helper()
	dir := n.volumes[volume]
	must := func(err error) {
		n.t.Helper()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	next, err := os.MkdirTemp(dir, "..")
	must(err)
	must(os.Chmod(next, 0o755))
	for name, text := range files {
		path := filepath.Join(next, name)
		must(os.WriteFile(path, []byte(text), mode))
		must(os.Chown(path, 0, n.pod.SecurityContext.FSGroup))
		must(os.Chmod(path, mode))
		if link := filepath.Join(dir, name); os.Symlink("..data/"+name, link) != nil {
			_, err := os.Readlink(link)
			must(err)
		}
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data")) // "": the first
	must(os.Symlink(filepath.Base(next), filepath.Join(dir, "..data_tmp")))
	must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if before != "" {
		must(os.RemoveAll(filepath.Join(dir, before)))
	}
}

// start runs the container. hosts are lines of /etc/hosts.
func (n *node) start(hosts string) *testkit.Process {
	n.t.Helper()
	c := n.pod.Containers[0]
	file := filepath.Join(n.t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(hosts), 0o644); err != nil {
		n.t.Fatal(err)
	}
	process, linux := n.spec["process"].(map[string]any), n.spec["linux"].(map[string]any)
	process["terminal"], process["noNewPrivileges"] = false, !c.SecurityContext.AllowPrivilegeEscalation
	process["user"] = map[string]any{"uid": n.pod.SecurityContext.RunAsUser, "gid": n.pod.SecurityContext.RunAsGroup,
		"additionalGids": []int{n.pod.SecurityContext.FSGroup}}
	process["args"] = append([]string{"postern"}, c.Args...)
	if fmt.Sprint(c.SecurityContext.Capabilities.Drop) == "[ALL]" {
		process["capabilities"] = map[string]any{}
	}
	sysctls := map[string]string{}
	for _, s := range n.pod.SecurityContext.Sysctls {
		sysctls[s.Name] = s.Value
	}
	linux["sysctl"] = sysctls
	n.spec["root"] = map[string]any{"path": "rootfs", "readonly": c.SecurityContext.ReadOnlyRootFilesystem}
	n.spec["mounts"] = n.mounts(file)
	text, err := json.Marshal(n.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.bundle, "config.json"), text, 0o644)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.id = fmt.Sprintf("postern-%d-%d", os.Getpid(), time.Now().UnixNano())
	p := testkit.Start(n.t, nil, n.runc, "--root", n.root, "run", "--bundle", n.bundle, "--pid-file", n.pidFile(), n.id)
	id := n.id
	n.t.Cleanup(func() { _ = command(n.runc, "--root", n.root, "delete", "--force", id).Run() }) // it may be gone
	return p
}

// mounts are those of the pod, with what every container has of the kernel.
func (n *node) mounts(hosts string) []any {
	mount := func(at, kind, from string, options ...string) any {
		return map[string]any{"destination": at, "type": kind, "source": from, "options": options}
	}
	all := []any{mount("/proc", "proc", "proc"), mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755"),
		mount("/etc/hosts", "bind", hosts, "rbind", "ro")}
	for _, m := range n.pod.Containers[0].VolumeMounts {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		all = append(all, mount(m.MountPath, "bind", n.volumes[m.Name], "rbind", access))
	}
	return all
}

func (n *node) pidFile() string { return filepath.Join(n.bundle, "pid") }

// exec runs a command in the container.
func (n *node) exec(args ...string) (string, error) {
	out, err := command(n.runc, append([]string{"--root", n.root, "exec", n.id}, args...)...).CombinedOutput()
	return string(out), err
}

// inside does something in the network of the container.
func (n *node) inside(do func()) {
	n.t.Helper()
	namespace, err := os.Open("/proc/" + read(n.t, n.pidFile()) + "/ns/net")
	if err != nil {
		n.t.Fatal(err)
	}
	defer namespace.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			n.t.Error(err)
			return
		}
		do()
	}()
	<-done
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// probed asks as the kubelet does, and returns the status.
func (n *node) probed(p probe) (status int) {
	n.t.Helper()
	n.inside(func() {
		conn, err := net.Dial("tcp", "127.0.0.1:8587") // by this thread, as no http.Client does
		if err != nil {
			n.t.Error(err)
			return
		}
		defer conn.Close()
		if p.HTTPGet.Scheme == "HTTPS" {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: 127.0.0.1:8587\r\n\r\n", p.HTTPGet.Path)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			n.t.Error(err)
			return
		}
		answer.Body.Close()
		status = answer.StatusCode
	})
	return status
}

// ownVolume makes the volume what the kubelet makes of it for fsGroup.
func (n *node) ownVolume() {
	n.t.Helper()
	dir := n.volumes["data"]
	if err := os.Chown(dir, 0, n.pod.SecurityContext.FSGroup); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o775|os.ModeSetgid); err != nil {
		n.t.Fatal(err)
	}
}

// The image runs as the chart has a cluster run it: what is wrong with its volumes is said, the provider is verified by
// the authorities in the image, a new secret is taken over, and what is under way ends before the container does.
func TestPodOfTheChart(t *testing.T) {
	p, config := renderedPod(t, "one")
	ca := testkit.NewCA(t)
	n := newNode(t, p, imageOf(t, "ARCHES="+runtime.GOARCH, "CA_FILE="+ca.File))
	n.publish("config", map[string]string{"relay.toml": config})
	n.publishMode("secret", map[string]string{"upstream": "old"}, 0o644)
	refuses := func(why string) {
		t.Helper()
		container := n.start("")
		if err := container.Wait(time.Minute); err == nil || !strings.Contains(container.Log(), why) {
			t.Fatalf("%v, not %q:\n%s", err, why, container.Log())
		}
	}
	refuses("upstream can be read by every user of this machine (mode 0644)") // the default of a Secret
	n.publish("secret", map[string]string{"upstream": "old"})
	refuses("data_dir /var/lib/postern/data cannot be created: create it with mode 0700, owned by the user that " +
		"postern runs as") // a volume without fsGroup
	n.ownVolume()
	n.pod.SecurityContext.Sysctls = nil
	refuses("in a container the sysctl net.ipv4.ip_unprivileged_port_start=0")
	n.pod = p
	container := n.start("127.0.0.1 smtp.example.net")
	container.WaitLog("msg=ready")
	for _, look := range []probe{p.Containers[0].ReadinessProbe, p.Containers[0].LivenessProbe} {
		if status := n.probed(look); status != http.StatusOK {
			t.Errorf("%+v is answered with %d", look, status)
		}
	}
	if said, err := n.exec("postern", "status", "--ready"); err != nil || said != "ready\n" {
		t.Errorf("%q, %v", said, err)
	}
	n.takesANewSecret(container, ca)
	n.publish("config", map[string]string{"relay.toml": "hostname = 1\n"})
	container.WaitLog("reload refused")
	if said, err := n.exec("postern", "status", "--ready"); err != nil || said != "ready\n" {
		t.Errorf("with a file that the daemon refused: %q, %v", said, err)
	}
	n.drains(container)
}

// takesANewSecret has the provider refuse the old password; the mail waits until the Secret has the new one.
func (n *node) takesANewSecret(container *testkit.Process, ca *testkit.CA) {
	t := n.t
	t.Helper()
	cert := ca.Leaf(testkit.LeafOptions{Names: []string{"smtp.example.net"}})
	var provider *sink.Sink
	n.inside(func() {
		var err error
		provider, err = sink.Start(context.Background(), sink.Options{Addr: "127.0.0.1:2525", Keep: 1,
			Username: "relay@example.com", Password: "new",
			TLS: cert.Server()})
		if err != nil {
			t.Error(err)
		}
	})
	defer provider.Close()
	user, err := n.exec("postern", "user", "add", "anna@example.com", "--json")
	if err != nil {
		t.Fatal(user)
	}
	_, password, _ := strings.Cut(user, `"password": "`)
	n.password, _, _ = strings.Cut(password, `"`)
	n.submits("From: anna@example.com\r\nSubject: first\r\n\r\nIt waits.\r\n")
	container.WaitLog(`msg="upstream paused" upstream=provider`)
	n.publish("secret", map[string]string{"upstream": "new"})
	container.WaitLog("configuration reloaded")
	n.submits("From: anna@example.com\r\nSubject: large\r\n\r\n" + strings.Repeat(lineOfText, 50000))
	container.WaitLog("msg=delivered .*upstream=provider")
	if got := provider.Messages(); len(got) != 1 || got[0].Login != "relay@example.com" {
		t.Errorf("the provider has %d messages", len(got))
	}
}

// submits has a client hand over a message, which must be accepted.
func (n *node) submits(message string) {
	n.t.Helper()
	n.inside(func() {
		sent := testkit.Swaks(n.t, testkit.Submission{Server: "127.0.0.1:587", TLS: testkit.StartTLS,
			Login: "anna@example.com", Password: n.password, From: "anna@example.com", To: []string{"bob@example.net"},
			Message: []byte(message)})
		if !sent.OK {
			n.t.Error(sent.Text)
		}
	})
}

// lineOfText is longer than the memory of a message, often enough: it goes to a file, which the root has no room for.
const lineOfText = "Mail that is large is kept in a file of the volume while it is on its way.\r\n"

// drains sends a message while the container is told to end.
func (n *node) drains(container *testkit.Process) {
	t := n.t
	t.Helper()
	n.inside(func() {
		c, err := smtp.Dial("127.0.0.1:587")
		if err == nil {
			err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
		}
		if err == nil {
			err = c.Auth(smtp.PlainAuth("", "anna@example.com", n.password, "127.0.0.1"))
		}
		if err == nil {
			err = c.Mail("anna@example.com")
		}
		if err == nil {
			err = c.Rcpt("bob@example.net")
		}
		if err != nil {
			t.Error(err)
			return
		}
		body, err := c.Data()
		if err != nil {
			t.Error(err)
			return
		}
		container.Signal(unix.SIGTERM)
		container.WaitLog(`msg="shutting down"`)
		if _, err := body.Write([]byte("From: anna@example.com\r\nSubject: last\r\n\r\nBody\r\n")); err != nil {
			t.Error(err)
		}
		if err := body.Close(); err != nil {
			t.Errorf("what was under way is not taken: %v", err)
		}
	})
	if err := container.Wait(time.Minute); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
