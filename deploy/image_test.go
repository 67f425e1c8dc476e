//go:build unix

package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testkit"
	"postern/relay/config"
)

// image is that of a static binary, once as amd64 and once as arm64: the one that is not this machine's differs in the
// machine that its header names, which is where readers look.
var image = sync.OnceValues(func() (string, error) {
	dir, err := packages()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "postern-static")
	build := command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary,
		"postern/cmd/postern")
	build.Env = append(build.Env, "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, said)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	for arch, machine := range map[string]byte{"amd64": 0x3e, "arm64": 0xb7} {
		data[18] = machine // e_machine
		if err := os.WriteFile(filepath.Join(dir, "postern-"+arch), data, 0o755); err != nil {
			return "", err
		}
	}
	return buildImage(dir, filepath.Join(dir, "image"))
})

// buildImage returns the path of an image of the version 1.0.0, of the programs in a directory.
func buildImage(programs, out string, env ...string) (string, error) {
	cmd := command("../scripts/image", out)
	cmd.Env = append(cmd.Env, "VERSION=1.0.0", "BINARIES="+programs, "GIT_OPTIONAL_LOCKS=0")
	cmd.Env = append(cmd.Env, env...)
	said, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, said)
	}
	return filepath.Join(out, "postern_1.0.0_oci.tar"), nil
}

// imageOf returns that image, or another of the same programs.
func imageOf(t *testing.T, env ...string) string {
	t.Helper()
	path, err := image()
	if err == nil && len(env) > 0 {
		path, err = buildImage(built, t.TempDir(), env...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImageIsReproducible(t *testing.T) {
	first := imageOf(t)
	again := imageOf(t, "TZ=Asia/Kathmandu", "LC_ALL=de_DE.UTF-8")
	sum := run(t, "sha256sum", first)[:64]
	if other := run(t, "sha256sum", again)[:64]; other != sum {
		t.Errorf("built twice, it has the sums %s and %s", sum, other)
	}
	if sums := read(t, filepath.Join(filepath.Dir(first), "SHA256SUMS")); sums != sum+"  postern_1.0.0_oci.tar\n" {
		t.Errorf("SHA256SUMS has %q", sums)
	}
}

// imageConfig is what a reader of images understands of one.
type imageConfig struct {
	Architecture string `json:"architecture"`
	Config       struct {
		User                  string
		ExposedPorts, Volumes map[string]struct{}
		Env, Entrypoint, Cmd  []string
		Labels                map[string]string
		StopSignal            string
		Healthcheck           struct {
			Test                           []string
			Interval, Timeout, StartPeriod time.Duration
			Retries                        int
		}
	} `json:"config"`
}

// Each architecture has the image that deploy/Containerfile describes, as another program reads it.
func TestImageIsThatOfTheContainerfile(t *testing.T) {
	skopeo := testkit.Need(t, "skopeo")
	archive := imageOf(t)
	settings := regexp.MustCompile(`(?m)^(USER|STOPSIGNAL|ENTRYPOINT|CMD|ENV|EXPOSE|VOLUME|HEALTHCHECK) .*`).
		FindAllString(read(t, "Containerfile"), -1)
	slices.Sort(settings)
	revision := strings.TrimSpace(run(t, "git", "rev-parse", "HEAD"))
	if run(t, "git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no") != "" {
		revision += "-modified"
	}
	for _, arch := range []string{"amd64", "arm64"} {
		said := run(t, skopeo, "--override-arch", arch, "inspect", "--raw", "--config", "oci-archive:"+archive)
		var got imageConfig
		if err := json.Unmarshal([]byte(said), &got); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		if got.Architecture != arch {
			t.Errorf("asked for %s, it is %s", arch, got.Architecture)
		}
		c := got.Config
		lines := []string{"USER " + c.User, "STOPSIGNAL " + c.StopSignal, "ENTRYPOINT " + list(c.Entrypoint),
			"CMD " + list(c.Cmd), "ENV " + strings.Join(c.Env, " "),
			"EXPOSE " + strings.Join(names(c.ExposedPorts), " "), "VOLUME " + strings.Join(names(c.Volumes), " "),
			fmt.Sprintf("HEALTHCHECK --interval=%s --timeout=%s --start-period=%s --retries=%d CMD %s",
				short(c.Healthcheck.Interval), short(c.Healthcheck.Timeout), short(c.Healthcheck.StartPeriod),
				c.Healthcheck.Retries, list(c.Healthcheck.Test[1:]))}
		if slices.Sort(lines); !slices.Equal(lines, settings) {
			t.Errorf("the image has\n%s\nand the Containerfile\n%s", strings.Join(lines, "\n"),
				strings.Join(settings, "\n"))
		}
		if c.Labels["org.opencontainers.image.version"] != "1.0.0" ||
			c.Labels["org.opencontainers.image.revision"] != revision {
			t.Errorf("its labels are %q", c.Labels)
		}
	}
}

// What a container sees is the binary, the authorities, and the volume, which belongs to the user and to nobody else:
// a volume that an engine makes is as the directory is here.
func TestImageRoot(t *testing.T) {
	dir := t.TempDir()
	run(t, testkit.Need(t, "skopeo"), "--override-arch", "amd64", "copy", "-q", "oci-archive:"+imageOf(t), "dir:"+dir)
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "manifest.json"))), &manifest); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, layer := range manifest.Layers {
		blob := read(t, filepath.Join(dir, strings.TrimPrefix(layer.Digest, "sha256:")))
		packed, err := gzip.NewReader(strings.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		for archive := tar.NewReader(packed); ; {
			h, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%04o %d:%d %s", h.Mode, h.Uid, h.Gid, h.Name))
		}
	}
	want := []string{"0755 0:0 etc/", "0755 0:0 etc/postern/", "0755 0:0 etc/ssl/", "0755 0:0 etc/ssl/certs/",
		"0644 0:0 etc/ssl/certs/ca-certificates.crt", "0755 0:0 run/", "0755 0:0 run/secrets/", "0755 0:0 usr/",
		"0755 0:0 usr/local/", "0755 0:0 usr/local/bin/", "0755 0:0 usr/local/bin/postern", "0755 0:0 var/",
		"0755 0:0 var/lib/", "0700 65532:65532 var/lib/postern/"}
	if !slices.Equal(got, want) {
		t.Errorf("the image has\n%s", strings.Join(got, "\n"))
	}
}

// names are the keys of a set, in order, and ports of TCP without their protocol.
func names(set map[string]struct{}) (all []string) {
	for name := range set {
		all = append(all, strings.TrimSuffix(name, "/tcp"))
	}
	slices.Sort(all)
	return all
}

// list is the JSON of a list, with a space after each comma, as people write it.
func list(words []string) string {
	text, _ := json.Marshal(words) // texts have one
	return strings.ReplaceAll(string(text), `","`, `", "`)
}

// short is a duration as people write it: 1m, not 1m0s.
func short(d time.Duration) string {
	if minutes, whole := strings.CutSuffix(d.String(), "m0s"); whole {
		return minutes + "m"
	}
	return d.String()
}

func TestChartIsRenderedAnew(t *testing.T) {
	sums := read(t, "helm/rendered/SHA256SUMS")
	cmd := command("sha256sum", "--strict", "--check", "rendered/SHA256SUMS")
	cmd.Dir = "helm"
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the chart is not that of deploy/helm/rendered: call 'make chart'\n%s", said)
	}
	err := filepath.Walk("helm", func(path string, info os.FileInfo, err error) error {
		name, _ := filepath.Rel("helm", path)
		part, _, _ := strings.Cut(name, "/")
		if err == nil && info.Mode().IsRegular() && part != "strict" && info.Name() != "SHA256SUMS" &&
			!strings.Contains(sums, "  "+name+"\n") {
			t.Errorf("%s is not in deploy/helm/rendered/SHA256SUMS: call 'make chart'", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// rendered returns the objects of a kind that the chart has with one of deploy/helm/values.
func rendered(t *testing.T, values, kind string) (all []json.RawMessage) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader([]byte(read(t, "helm/rendered/"+values+".json"))))
	for decoder.More() {
		var object json.RawMessage
		var is struct{ Kind string }
		if err := decoder.Decode(&object); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(object, &is); err != nil {
			t.Fatal(err)
		}
		if is.Kind == kind {
			all = append(all, object)
		}
	}
	return all
}

// One node needs no budget of disruptions, which would keep its machine from being emptied; several have one, and more.
func TestChartHasWhatTheShapeNeeds(t *testing.T) {
	for values, want := range map[string][]string{
		"one": {"ConfigMap", "NetworkPolicy", "Service", "Service", "ServiceAccount", "StatefulSet"},
		"several": {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "Service", "ServiceAccount",
			"ServiceMonitor", "StatefulSet"},
	} {
		isRelay(t, values)
		var got []string
		for _, kind := range slices.Compact(slices.Clone(want)) {
			for range rendered(t, values, kind) {
				got = append(got, kind)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", values, got, want)
		}
	}
	if n := len(rendered(t, "one", "PodDisruptionBudget")); n != 0 {
		t.Errorf("one node has %d budgets of disruptions", n)
	}
}

// What the cluster does with pods, and who reaches them: each is what values and relay.toml of the shape say.
func TestChartSays(t *testing.T) {
	const pod, container = "spec.template.spec.", "spec.template.spec.containers.0."
	const selector = `{"app.kubernetes.io/instance":"postern","app.kubernetes.io/name":"postern"}`
	const alive = `{"path":"/healthz","port":"admin","scheme":"HTTPS"}`
	const probes = `[{"port":"admin","protocol":"TCP"}]`
	const mail = `[{"port":"submission","protocol":"TCP"},{"port":"submissions","protocol":"TCP"}]`
	for _, c := range []struct {
		values, kind string
		number       int // of the objects of that kind
		path, want   string
	}{
		{"one", "StatefulSet", 0, container + "lifecycle", `{"preStop":{"sleep":{"seconds":5}}}`},
		{"one", "StatefulSet", 0, pod + "terminationGracePeriodSeconds", `90`},
		{"one", "StatefulSet", 0, container + "startupProbe",
			`{"failureThreshold":120,"httpGet":` + alive + `,"periodSeconds":5}`},
		{"one", "StatefulSet", 0, container + "livenessProbe",
			`{"failureThreshold":6,"httpGet":` + alive + `,"periodSeconds":10,"timeoutSeconds":5}`},
		{"one", "StatefulSet", 0, container + "ports", `[{"containerPort":587,"name":"submission"},` +
			`{"containerPort":465,"name":"submissions"},{"containerPort":8587,"name":"admin"}]`},
		{"one", "StatefulSet", 0, pod + "topologySpreadConstraints.0.labelSelector.matchLabels", selector},
		{"one", "StatefulSet", 0, "spec.selector.matchLabels", selector},
		{"one", "Service", 0, "spec.ports", `[{"name":"submission","port":587,"targetPort":"submission"},` +
			`{"name":"submissions","port":465,"targetPort":"submissions"}]`},
		{"one", "Service", 0, "spec.externalTrafficPolicy", `"Local"`},
		{"one", "Service", 0, "spec.selector", selector},
		{"one", "Service", 1, "spec.ports", `[{"name":"admin","port":8587,"targetPort":"admin"}]`},
		{"one", "Service", 1, "spec.clusterIP", `"None"`},
		{"one", "NetworkPolicy", 0, "spec", `{"ingress":[{"ports":` + mail +
			`}],"podSelector":{"matchLabels":` + selector + `},"policyTypes":["Ingress"]}`},
		{"several", "NetworkPolicy", 0, "spec.ingress", `[{"from":[{"ipBlock":{"cidr":"192.0.2.0/24"}}],"ports":` +
			mail + `},{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}],` +
			`"ports":` + probes + `}]`},
		{"several", "NetworkPolicy", 0, "spec.policyTypes", `["Ingress","Egress"]`},
		{"several", "PodDisruptionBudget", 0, "spec", `{"maxUnavailable":1,"selector":{"matchLabels":` + selector +
			`},"unhealthyPodEvictionPolicy":"AlwaysAllow"}`},
	} {
		var object any
		if err := json.Unmarshal(rendered(t, c.values, c.kind)[c.number], &object); err != nil {
			t.Fatal(err)
		}
		for _, step := range strings.Split(c.path, ".") {
			switch at := object.(type) {
			case map[string]any:
				object = at[step]
			case []any:
				object = at[0]
			}
		}
		if got, err := json.Marshal(object); err != nil || string(got) != c.want {
			t.Errorf("%s: %s of %s is %s, want %s", c.values, c.path, c.kind, got, c.want)
		}
	}
}

// The chart knows each key of relay.toml that is a secret: such as stand in a ConfigMap are refused. url is one in
// [[alert]] alone, and proxy with a password.
func TestChartKnowsEverySecret(t *testing.T) {
	chart := read(t, "helm/postern/templates/_helpers.tpl")
	known := regexp.MustCompile(`has \$key \(list ([^)]*)\)`).FindStringSubmatch(chart)
	if known == nil {
		t.Fatal("the chart has no list of them")
	}
	want := []string{"proxy", "url"}
	for _, quoted := range strings.Fields(known[1]) {
		want = append(want, strings.Trim(quoted, `"`))
	}
	slices.Sort(want)
	got := slices.Compact(slices.Sorted(slices.Values(secretKeys(reflect.TypeFor[config.Config]()))))
	if !slices.Equal(got, want) {
		t.Errorf("relay.toml has the secrets %q, and the chart knows %q", got, want)
	}
}

// secretKeys are the keys of relay.toml whose values are secrets, in a part of it.
func secretKeys(part reflect.Type) (keys []string) {
	for part.Kind() == reflect.Slice || part.Kind() == reflect.Pointer || part.Kind() == reflect.Map {
		part = part.Elem()
	}
	if part.Kind() != reflect.Struct {
		return nil
	}
	for i := range part.NumField() {
		field := part.Field(i)
		if key := field.Tag.Get("toml"); field.Type == reflect.TypeFor[config.Secret]() {
			keys = append(keys, key)
		} else if key != "" || field.Anonymous {
			keys = append(keys, secretKeys(field.Type)...)
		}
	}
	return keys
}

// isRelay checks that Postern takes relay.toml of the chart, and that it fits what the chart mounts and probes.
func isRelay(t *testing.T, values string) {
	t.Helper()
	p, text := renderedPod(t, values)
	path := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if at := p.Containers[0].VolumeMounts[0].MountPath; filepath.Dir(c.DataDir) != at {
		t.Errorf("%s: data_dir is %s, and the volume %s", values, c.DataDir, at)
	}
	if !c.Admin.TLS || c.Admin.Address != ":8587" {
		t.Errorf("%s: probes do not reach %+v", values, c.Admin)
	}
}
