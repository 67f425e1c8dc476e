// Command strict reads what `helm template` renders and writes it as JSON, one object after the other. It refuses what
// Kubernetes does not know: a field with a wrong name or type is an error here, where a cluster would drop it. It is a
// module of its own, so that who builds Postern needs none of this.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// kinds are the objects that the chart may have.
var kinds = map[string]func() any{
	"apps/v1 StatefulSet":                     func() any { return new(apps.StatefulSet) },
	"v1 ConfigMap":                            func() any { return new(core.ConfigMap) },
	"v1 Service":                              func() any { return new(core.Service) },
	"v1 ServiceAccount":                       func() any { return new(core.ServiceAccount) },
	"policy/v1 PodDisruptionBudget":           func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return new(networking.NetworkPolicy) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return new(monitoring.ServiceMonitor) },
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "strict:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	documents := yaml.NewYAMLReader(bufio.NewReader(in))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := convert(document, out); err != nil {
			return fmt.Errorf("%w in:\n%s", err, document)
		}
	}
}

func convert(document []byte, out io.Writer) error {
	var kind meta.TypeMeta
	if err := strict.Unmarshal(document, &kind); err != nil {
		return err
	}
	if kind == (meta.TypeMeta{}) { // a template that rendered nothing
		return nil
	}
	known := kinds[kind.APIVersion+" "+kind.Kind]
	if known == nil {
		return fmt.Errorf("%s %s is not expected", kind.APIVersion, kind.Kind)
	}
	if err := strict.UnmarshalStrict(document, known()); err != nil {
		return err
	}
	plain, err := strict.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, plain, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, pretty.String())
	return err
}
