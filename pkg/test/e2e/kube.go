package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// kube is kubectl in one namespace of the current context.
type kube struct {
	runner
	program   string
	namespace string
}

// do calls kubectl with args.
func (k kube) do(ctx context.Context, args ...string) (string, error) {
	return k.run(ctx, command{name: k.program, args: append([]string{"--namespace", k.namespace}, args...)})
}

// get reads objects: into is what `kubectl get ARGS -o json` is decoded into.
func (k kube) get(ctx context.Context, into any, args ...string) error {
	text, err := k.do(ctx, append(append([]string{"get"}, args...), "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("read kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// apply applies the manifests.
func (k kube) apply(ctx context.Context, manifests string) error {
	_, err := k.run(ctx, command{
		name: k.program, args: []string{"--namespace", k.namespace, "apply", "-f", "-"}, stdin: strings.NewReader(manifests),
	})
	return err
}

// exec runs a command of this program in the helper's client pod and returns its output.
func (k kube) exec(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	full := []string{"--namespace", k.namespace, "exec"}
	if stdin != nil {
		full = append(full, "-i")
	}
	full = append(full, clientPod, "--", helperProgram)
	return k.run(ctx, command{name: k.program, args: append(full, args...), stdin: stdin})
}

// pods returns the pods with these labels that are not finished, whether ready or not.
func (k kube) pods(ctx context.Context, selector string) ([]pod, error) {
	var pods list[pod]
	if err := k.get(ctx, &pods, "pods", "-l", selector); err != nil {
		return nil, err
	}
	var active []pod
	for _, p := range pods.Items {
		if p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed" {
			active = append(active, p)
		}
	}
	return active, nil
}

// crash ends the first process of a container without clean-up: an ephemeral container sends it SIGQUIT, on which Go exits
// at once. The kernel ignores SIGKILL to the first process from inside its namespace.
func (k kube) crash(ctx context.Context, p pod, container, image string) error {
	_, err := k.do(ctx, "debug", p.Metadata.Name, "--image="+image, "--target="+container, "--profile=restricted", "--quiet",
		"--image-pull-policy=IfNotPresent", "--", helperProgram, "crash")
	return err
}

// kill ends pods with SIGTERM and, a second or two later, SIGKILL. (With a grace period of zero the kubelet would use the
// one in the pod's specification.)
func (k kube) kill(ctx context.Context, pods []pod) error {
	args := []string{"delete", "pod", "--grace-period=1", "--wait=false"}
	for _, p := range pods {
		args = append(args, p.Metadata.Name)
	}
	_, err := k.do(ctx, args...)
	return err
}
