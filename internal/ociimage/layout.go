package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// user is who Postern is in a container, by number: there is no list of users, and Kubernetes compares numbers.
const user = 65532

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// source is what an image is made of.
type source struct {
	version, revision string
	created           time.Time
	authorities       []byte
	binaries          []binary
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations"`
}

type config struct {
	Created time.Time `json:"created"`
	platform
	Config  settings  `json:"config"`
	RootFS  rootFS    `json:"rootfs"`
	History []history `json:"history"`
}

type settings struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	Cmd          []string            `json:"Cmd"`
	Volumes      map[string]struct{} `json:"Volumes"`
	Labels       map[string]string   `json:"Labels"`
	StopSignal   string              `json:"StopSignal"`
	Healthcheck  healthcheck         `json:"Healthcheck"` // Docker's; the specification has others ignore it
}

type healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created time.Time `json:"created"`
	By      string    `json:"created_by"`
}

// labels say what it is, by the keys of the specification.
func (s *source) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "postern",
		"org.opencontainers.image.description": "Authenticating SMTP submission relay",
		"org.opencontainers.image.licenses":    "MIT",
		"org.opencontainers.image.version":     s.version,
		"org.opencontainers.image.revision":    s.revision,
		"org.opencontainers.image.created":     s.created.Format(time.RFC3339),
	}
}

// settings are those of deploy/Containerfile.
func (s *source) settings() settings {
	return settings{
		User:         fmt.Sprintf("%d:%d", user, user),
		ExposedPorts: map[string]struct{}{"465/tcp": {}, "587/tcp": {}},
		Env:          []string{"PATH=/usr/local/bin", "POSTERN_CONFIG=/etc/postern/relay.toml"},
		Entrypoint:   []string{"postern"},
		Cmd:          []string{"serve"},
		Volumes:      map[string]struct{}{"/var/lib/postern": {}},
		Labels:       s.labels(),
		StopSignal:   "SIGTERM",
		Healthcheck: healthcheck{Test: []string{"CMD", "postern", "status", "--alive"}, Interval: 30 * time.Second,
			Timeout: 5 * time.Second, StartPeriod: time.Minute, Retries: 3},
	}
}

// blobs are the content of the layout, by digest.
type blobs map[string][]byte

func (b blobs) add(mediaType string, content []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	b[sum] = content
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
}

func (b blobs) addJSON(mediaType string, v any) (descriptor, error) {
	content, err := json.Marshal(v)
	return b.add(mediaType, content), err
}

// archive returns the layout as one tar archive. What index.json names is an index of its own: readers that want one
// image of an archive choose in it by their architecture.
func (s *source) archive() ([]byte, error) {
	all := blobs{}
	images := index{SchemaVersion: 2, MediaType: typeIndex, Annotations: s.labels()}
	for _, b := range s.binaries {
		d, err := s.image(all, b)
		if err != nil {
			return nil, err
		}
		images.Manifests = append(images.Manifests, d)
	}
	d, err := all.addJSON(typeIndex, images)
	if err != nil {
		return nil, err
	}
	d.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": s.version,
		"io.containerd.image.name":          "localhost/postern:" + s.version, // what docker load calls it
	}
	return s.layout(all, d)
}

// layout packs blobs, and an index that names the one that the others hang on.
func (s *source) layout(all blobs, d descriptor) ([]byte, error) {
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{d}})
	if err != nil {
		return nil, err
	}
	files := []file{{name: "oci-layout", content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", content: top}, {name: "blobs/"}, {name: "blobs/sha256/"}}
	for _, sum := range slices.Sorted(maps.Keys(all)) {
		files = append(files, file{name: "blobs/sha256/" + sum, content: all[sum]})
	}
	var out bytes.Buffer
	err = s.pack(&out, files)
	return out.Bytes(), err
}

func (s *source) image(all blobs, b binary) (descriptor, error) {
	var layer, packed bytes.Buffer
	if err := s.pack(&layer, s.root(b)); err != nil {
		return descriptor{}, err
	}
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(layer.Bytes()); err != nil {
		return descriptor{}, err
	}
	if err := zip.Close(); err != nil {
		return descriptor{}, err
	}
	on := platform{b.arch, "linux"}
	c, err := all.addJSON(typeConfig, config{
		Created: s.created, platform: on, Config: s.settings(),
		RootFS:  rootFS{"layers", []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
		History: []history{{s.created, "postern " + s.version}},
	})
	if err != nil {
		return descriptor{}, err
	}
	d, err := all.addJSON(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: c,
		Layers: []descriptor{all.add(typeLayer, packed.Bytes())}, Annotations: s.labels()})
	d.Platform = &on
	return d, err
}

// file is one of an archive; a directory if its name ends with a slash.
type file struct {
	name    string
	mode    int64 // 0: 0644, and 0755 of a directory
	owner   int
	content []byte
}

// root is what a container sees. The empty directories are there to be mounted on: the root itself may be read-only.
func (s *source) root(b binary) []file {
	return []file{
		{name: "etc/"}, {name: "etc/postern/"}, {name: "etc/ssl/"}, {name: "etc/ssl/certs/"},
		{name: "etc/ssl/certs/ca-certificates.crt", content: s.authorities},
		{name: "run/"}, {name: "run/secrets/"},
		{name: "usr/"}, {name: "usr/local/"}, {name: "usr/local/bin/"},
		{name: "usr/local/bin/postern", mode: 0o755, content: b.content},
		{name: "var/"}, {name: "var/lib/"}, {name: "var/lib/postern/", mode: 0o700, owner: user},
	}
}

func (s *source) pack(w io.Writer, files []file) error {
	archive := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.content)),
			Uid: f.owner, Gid: f.owner, ModTime: s.created, Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if f.mode != 0 {
			h.Mode = f.mode
		}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(f.content); err != nil {
			return err
		}
	}
	return archive.Close()
}
