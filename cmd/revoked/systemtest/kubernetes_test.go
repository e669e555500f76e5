//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// kustomizations are the complete kustomizations below deploy/kubernetes.
var kustomizations = []struct {
	name  string
	nodes int
}{{"three", 3}, {"five", 5}, {"three-files", 3}}

// An object is a part of a YAML document.
type object map[string]any

// in returns the member at a path: a map, a list, or nil.
func (o object) in(path ...string) any {
	var v any = o
	for _, name := range path {
		m, ok := v.(object) // the decoder uses one type for all maps
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (o object) text(path ...string) string { return fmt.Sprint(o.in(path...)) }

func (o object) part(path ...string) object {
	m, _ := o.in(path...).(object)
	return m
}

func (o object) list(path ...string) (out []object) {
	all, _ := o.in(path...).([]any)
	for _, v := range all {
		m, _ := v.(object)
		out = append(out, m)
	}
	return out
}

func (o object) named(kind, name string) bool {
	return o.text("kind") == kind && o.text("metadata", "name") == name
}

// build runs the program that builds kustomizations, which decodes their objects strictly.
func build(t *testing.T, dir string) ([]object, error) {
	t.Helper()
	program, err := exec.LookPath("revoked") // TestMain removes its directory
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(filepath.Dir(program), "kubernetes-check")
	source := filepath.Join(repository, "deploy/kubernetes/check")
	// Without a cache this compiles for minutes.
	compile := exec.Command("go", "-C", source, "build", "-buildvcs=false", "-o", program)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", source, err, out)
	}
	out, err := tool(t, os.Environ(), program, dir)
	if err != nil {
		return nil, err
	}
	var objects []object
	for dec := yaml.NewDecoder(strings.NewReader(out)); ; {
		var o object
		switch err := dec.Decode(&o); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case o != nil:
			objects = append(objects, o)
		}
	}
}

func find(t *testing.T, objects []object, kind, name string) object {
	t.Helper()
	i := slices.IndexFunc(objects, func(o object) bool { return o.named(kind, name) })
	if i < 0 {
		t.Fatalf("got no %s %s", kind, name)
	}
	return objects[i]
}

// The kustomizations have only fields of the Kubernetes API. Every pod has the fewest rights
// possible. The nodes have probes, a hook, a budget and a policy.
func TestKubernetes_Objects_AreHardened(t *testing.T) {
	for _, k := range kustomizations {
		t.Run(k.name, func(t *testing.T) {
			objects, err := build(t, filepath.Join(repository, "deploy/kubernetes", k.name))
			if err != nil {
				t.Fatal(err)
			}
			nodes := find(t, objects, "StatefulSet", "revoked")
			checkPod(t, "node", nodes.part("spec", "template"))
			checkNodePod(t, nodes.part("spec", "template"))
			checkPod(t, "backup", find(t, objects, "CronJob", "revoked-backup").part("spec", "jobTemplate", "spec", "template"))
			checkAround(t, objects, nodes, k.nodes)
			for _, o := range objects {
				if o.text("kind") == "Secret" {
					t.Errorf("got the Secret %s in the files, want only names", o.text("metadata", "name"))
				}
				if space := o.text("metadata", "namespace"); o.text("kind") != "Namespace" && space != "revoked" {
					t.Errorf("%s %s: got namespace %s, want revoked", o.text("kind"), o.text("metadata", "name"), space)
				}
			}
		})
	}
}

// checkPod checks the requirements of the level "restricted" of Kubernetes, and some more.
func checkPod(t *testing.T, name string, pod object) {
	t.Helper()
	spec := pod.part("spec")
	for path, want := range map[string]string{
		"securityContext.runAsNonRoot": "true", "securityContext.runAsUser": "65532", "securityContext.fsGroup": "65532",
		"securityContext.seccompProfile.type": "RuntimeDefault", "automountServiceAccountToken": "false",
		"enableServiceLinks": "false", "hostNetwork": "<nil>", "hostPID": "<nil>",
	} {
		if got := spec.text(strings.Split(path, ".")...); got != want {
			t.Errorf("%s: got %s %s, want %s", name, path, got, want)
		}
	}
	for _, v := range spec.list("volumes") {
		if v["hostPath"] != nil || v.text("secret", "secretName") == "revoked-ca" {
			t.Errorf("%s: got volume %v, want neither the machine's files nor the CA's key", name, v)
		}
	}
	containers := append(spec.list("containers"), spec.list("initContainers")...)
	for _, c := range containers {
		for path, want := range map[string]string{
			"securityContext.readOnlyRootFilesystem": "true", "securityContext.allowPrivilegeEscalation": "false",
			"securityContext.capabilities": "map[drop:[ALL]]",
		} {
			if got := c.text(strings.Split(path, ".")...); got != want {
				t.Errorf("%s: got %s %s, want %s", name, path, got, want)
			}
		}
		if c.in("resources", "requests", "memory") == nil || c.in("resources", "limits", "memory") == nil {
			t.Errorf("%s: got resources %v, want requests and limits", name, c["resources"])
		}
		if !strings.HasPrefix(c.text("image"), "registry.example.org/revoked:") {
			t.Errorf("%s: got image %s, want the one of the kustomization", name, c.text("image"))
		}
	}
}

// checkNodePod checks the probes, the hook and the shutdown times of a node.
func checkNodePod(t *testing.T, pod object) {
	t.Helper()
	c := pod.list("spec", "containers")[0]
	for probe, path := range map[string]string{
		"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz",
	} {
		if got := c.text(probe, "httpGet", "path") + " " + c.text(probe, "httpGet", "scheme"); got != path+" HTTPS" {
			t.Errorf("%s: got %s, want %s HTTPS", probe, got, path)
		}
	}
	hook, err := strconv.Atoi(c.text("lifecycle", "preStop", "sleep", "seconds"))
	if err != nil || hook < 1 {
		t.Errorf("preStop: got %d s (%v), want some", hook, err)
	}
	grace, err := strconv.Atoi(pod.text("spec", "terminationGracePeriodSeconds"))
	const shutdown = 5 + 15 // the defaults of shutdown_delay and shutdown_timeout: TestDeploy_StopTimes_CoverShutdown
	if err != nil || grace <= hook+shutdown {
		t.Errorf("got %d s for a shutdown (%v), want more than %d s", grace, err, hook+shutdown)
	}
	if zone := "metadata.labels['topology.kubernetes.io/zone']"; !strings.Contains(fmt.Sprint(c["env"]), zone) {
		t.Errorf("got no %s in the variables, want the region from the zone", zone)
	}
}

// checkAround checks the objects that select the pods of the nodes.
func checkAround(t *testing.T, objects []object, nodes object, want int) {
	t.Helper()
	labels := nodes.text("spec", "template", "metadata", "labels")
	for what, got := range map[string]string{
		"selector of the nodes":   nodes.text("spec", "selector", "matchLabels"),
		"selector of the budget":  find(t, objects, "PodDisruptionBudget", "revoked").text("spec", "selector", "matchLabels"),
		"selector of the policy":  find(t, objects, "NetworkPolicy", "revoked").text("spec", "podSelector", "matchLabels"),
		"selector of the service": find(t, objects, "Service", "revoked").text("spec", "selector"),
		"selector of the names":   find(t, objects, "Service", nodes.text("spec", "serviceName")).text("spec", "selector"),
	} {
		if got != labels {
			t.Errorf("%s: got %s, want the labels %s of the pods", what, got, labels)
		}
	}
	if got := nodes.text("spec", "replicas"); got != strconv.Itoa(want) {
		t.Errorf("got %s replicas, want %d", got, want)
	}
	if got := find(t, objects, "PodDisruptionBudget", "revoked").text("spec", "maxUnavailable"); got != "1" {
		t.Errorf("budget: got %s, want 1", got)
	}
	for _, rule := range find(t, objects, "NetworkPolicy", "revoked").list("spec", "ingress") {
		from := rule.text("from")
		if strings.Contains(rule.text("ports"), "cluster") && from != "[map[podSelector:map[matchLabels:"+labels+"]]]" {
			t.Errorf("policy: got %s at the cluster port, want only the nodes", from)
		}
	}
}

// The build fails for a field that the Kubernetes API lacks, such as a misspelled probe.
func TestKubernetes_UnknownField_Fails(t *testing.T) {
	dir := t.TempDir()
	base, err := filepath.Abs(filepath.Join(repository, "deploy/kubernetes/base"))
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(dir, base)
	if err != nil {
		t.Fatal(err)
	}
	text := "resources: [" + relative + "]\npatches:\n  - target: {kind: StatefulSet}\n" +
		"    patch: '[{op: add, path: /spec/template/spec/containers/0/readinesProbe, value: {periodSeconds: 1}}]'\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := build(t, dir); err == nil || !strings.Contains(err.Error(), "readinesProbe") {
		t.Errorf("got error %v, want readinesProbe in it", err)
	}
}

// With the variables and files of a pod, the program accepts its settings without a warning. With
// the certificates of another pod, it refuses them.
func TestKubernetes_Settings_AreAccepted(t *testing.T) {
	for _, k := range kustomizations {
		t.Run(k.name, func(t *testing.T) {
			objects, err := build(t, filepath.Join(repository, "deploy/kubernetes", k.name))
			if err != nil {
				t.Fatal(err)
			}
			nodes := find(t, objects, "StatefulSet", "revoked")
			for i := range k.nodes {
				p := podOf(t, nodes, i)
				if code, out, messages := runProgram(t, p.env, "", "server", "--check-config"); code != 0 || messages != "" {
					t.Errorf("pod %d: got exit code %d, want 0 and no warning: %s%s", i, code, out, messages)
				}
				join, expect := p.setting("REVOKED_JOIN"), p.setting("REVOKED_BOOTSTRAP_EXPECT")
				if strings.Count(join, ":7443") != k.nodes || expect != strconv.Itoa(k.nodes) {
					t.Errorf("pod %d: got join %s and bootstrap_expect %s, want %d", i, join, expect, k.nodes)
				}
			}
			p := podOf(t, nodes, 0)
			p.env = append(p.env, "REVOKED_NODE_ID=revoked-1")
			if code, _, messages := runProgram(t, p.env, "", "server", "--check-config"); code == 0 {
				t.Errorf("as another node: got exit code 0, want an error: %s", messages)
			}
		})
	}
}

// A pod has the variables of a container. Their paths are those of files on this machine.
type pod struct{ env []string }

func (p pod) setting(name string) string {
	for _, v := range p.env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// podOf expands the variables as Kubernetes does, and creates the files of the volumes below a
// directory.
func podOf(t *testing.T, nodes object, ordinal int) pod {
	t.Helper()
	dir, name := t.TempDir(), fmt.Sprintf("revoked-%d", ordinal)
	fields := map[string]string{"metadata.name": name, "metadata.labels['topology.kubernetes.io/zone']": "zone-a"}
	values := map[string]string{}
	reference := regexp.MustCompile(`\$\((\w+)\)`)
	c := nodes.list("spec", "template", "spec", "containers")[0]
	var p pod
	for _, e := range c.list("env") {
		value := fields[e.text("valueFrom", "fieldRef", "fieldPath")]
		if e["value"] != nil {
			value = reference.ReplaceAllStringFunc(e.text("value"), func(r string) string {
				v, ok := values[r[2:len(r)-1]] // only variables that are listed before it
				if !ok {
					t.Errorf("%s: got %s before its variable", e.text("name"), r)
				}
				return v
			})
		}
		values[e.text("name")] = value
		if strings.HasPrefix(value, "/") {
			value = filepath.Join(dir, value)
		}
		p.env = append(p.env, e.text("name")+"="+value)
	}
	makeVolumes(t, dir, name, nodes, c)
	return p
}

// makeVolumes creates the files of a pod's volumes in the way that docs/kubernetes.md and the
// drivers do.
func makeVolumes(t *testing.T, dir, name string, nodes, c object) {
	t.Helper()
	source := t.TempDir()
	script := "revoked keygen -f gossip.key\nrevoked keygen --secret -f admin.secret\n" + filesBlock(t)
	sh := startProcess(t, "", func(cmd *exec.Cmd) { cmd.Dir = source }, "sh", "-ec", script)
	if code := sh.exit(t); code != 0 {
		t.Fatalf("docs/kubernetes.md: got exit code %d: %s", code, sh.out.String())
	}
	secrets := map[string][]string{ // by the commands of the page
		"revoked-shared": {"pki/ca.pem", "gossip.key"}, "revoked-bootstrap": {"admin.secret"},
	}
	for _, m := range c.list("volumeMounts") {
		from := map[string]string{} // name below the mount, and the file that it gets
		for _, v := range nodes.list("spec", "template", "spec", "volumes") {
			switch secret := v.text("secret", "secretName"); {
			case v.text("name") != m.text("name"):
			case v["csi"] != nil:
				from = driverFiles(t, source, v, name)
			case secret == "revoked":
				own := strings.ReplaceAll(m.text("subPathExpr"), "$(REVOKED_NODE_ID)", name)
				if own == m.text("subPathExpr") {
					t.Errorf("got mount %v, want only the pod's own file", m)
				}
				from[""] = "pki/" + own
			case v["secret"] != nil:
				for _, f := range secrets[secret] {
					from[filepath.Base(f)] = f
				}
			}
		}
		for to, f := range from {
			copyPrivate(t, filepath.Join(source, f), filepath.Join(dir, m.text("mountPath"), to))
		}
	}
}

// driverFiles issues the certificate that the csi-driver of cert-manager requests for a volume. It
// returns the files that the driver writes.
func driverFiles(t *testing.T, source string, volume object, name string) map[string]string {
	t.Helper()
	const driver = "csi.cert-manager.io"
	expand := strings.NewReplacer("${POD_NAME}", name, "${POD_NAMESPACE}", "revoked")
	attribute := func(a string) string { return expand.Replace(volume.text("csi", "volumeAttributes", driver+"/"+a)) }
	if volume.text("csi", "driver") != driver || attribute("issuer-name") != "revoked" {
		t.Errorf("got volume %v, want the issuer revoked of %s", volume, driver)
	}
	args, usages := []string{"cert", "server", "api", "--hosts", attribute("dns-names")}, "digital signature,server auth"
	if node, ok := strings.CutPrefix(attribute("uri-sans"), "revoked://node/"); ok {
		args, usages = []string{"cert", "node", node}, "digital signature,server auth,client auth"
	}
	if got := attribute("key-usages"); got != usages {
		t.Errorf("got usages %s of %s, want %s", got, volume.text("name"), usages)
	}
	out := "driver-" + volume.text("name")
	mustTool(t, "revoked", append(args, "--dir", filepath.Join(source, out), "--ca", filepath.Join(source, "pki/ca.pem"),
		"--ca-key", filepath.Join(source, "ca/ca-key.pem"))...)
	own := filepath.Join(out, args[2])
	return map[string]string{"ca.crt": "pki/ca.pem", "tls.crt": own + ".pem", "tls.key": own + "-key.pem"}
}

// filesBlock returns the commands of kubernetes.md that create certificates as files.
func filesBlock(t *testing.T) string {
	t.Helper()
	_, rest, ok := strings.Cut(readRepository(t, "docs/kubernetes.md"), "<!-- test: kubernetes files -->\n```sh\n")
	text, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/kubernetes.md: got no block with certificates as files")
	}
	return text
}

func copyPrivate(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// kubernetes.md creates exactly the secrets that the pods mount.
func TestKubernetes_Secrets_MatchThePage(t *testing.T) {
	created := map[string]bool{"revoked-ca": true} // by cert-manager, and mounted nowhere
	for _, m := range regexp.MustCompile(`create secret generic (\S+) `).FindAllStringSubmatch(
		readRepository(t, "docs/kubernetes.md"), -1) {
		created[m[1]] = true
	}
	mounted := map[string]bool{"revoked-ca": true}
	for _, k := range kustomizations {
		objects, err := build(t, filepath.Join(repository, "deploy/kubernetes", k.name))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			for _, path := range [][]string{{"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}} {
				for _, v := range o.list(append(path, "spec", "volumes")...) {
					if v["secret"] != nil {
						mounted[v.text("secret", "secretName")] = true
					}
				}
			}
		}
	}
	if fmt.Sprint(created) != fmt.Sprint(mounted) {
		t.Errorf("got secrets %v of the page, want %v of the pods", created, mounted)
	}
}
