// Command check builds kustomizations and prints their objects as YAML. It fails if an object has
// an unknown kind, an unknown field or a duplicate field. It does not call a cluster.
//
//	go run . ../three ../five
//
// It is a separate module, because the node does not need the types of Kubernetes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "check: no kustomization (want one or more directories)")
		os.Exit(2)
	}
	for _, dir := range os.Args[1:] {
		if err := check(os.Stdout, dir); err != nil {
			fmt.Fprintf(os.Stderr, "check: %s: %v\n", dir, err)
			os.Exit(1)
		}
	}
}

// check builds the kustomization in dir, decodes its objects strictly and writes them to w.
func check(w io.Writer, dir string) error {
	decoder, err := strictDecoder()
	if err != nil {
		return err
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	if built.Size() == 0 {
		return errors.New("kustomization has no objects")
	}
	var problems []error
	for _, object := range built.Resources() {
		text, err := object.AsYAML()
		if err != nil {
			return err
		}
		if _, _, err := decoder.Decode(text, nil, nil); err != nil {
			problems = append(problems, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err))
		}
		if _, err := fmt.Fprintf(w, "---\n%s", text); err != nil {
			return err
		}
	}
	return errors.Join(problems...)
}

// strictDecoder returns a decoder for the kinds that the kustomizations use.
func strictDecoder() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, batch.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme,
		certmanager.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
}
