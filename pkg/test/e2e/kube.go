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

// apply makes the manifests' objects be.
func (k kube) apply(ctx context.Context, manifests string) error {
	_, err := k.run(ctx, command{
		name: k.program, args: []string{"--namespace", k.namespace, "apply", "-f", "-"}, stdin: strings.NewReader(manifests),
	})
	return err
}

// exec runs this program's command in the helper's client pod, and returns what it printed.
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
	var living []pod
	for _, p := range pods.Items {
		if p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed" {
			living = append(living, p)
		}
	}
	return living, nil
}

// crash ends the first process of a pod's container between two instructions: a process beside it, in the pod, sends it the
// signal at which Go stops without any clean-up. SIGKILL is not for the first process to be sent from inside.
func (k kube) crash(ctx context.Context, p pod, container, image string) error {
	_, err := k.do(ctx, "debug", p.Metadata.Name, "--image="+image, "--target="+container, "--profile=restricted", "--quiet",
		"--image-pull-policy=IfNotPresent", "--", helperProgram, "crash")
	return err
}

// kill ends pods at once: SIGKILL a second or two after SIGTERM, whatever they are at. (A grace period of zero would only
// remove the object at once; the kubelet then grants what the pod's own specification says.)
func (k kube) kill(ctx context.Context, pods []pod) error {
	args := []string{"delete", "pod", "--grace-period=1", "--wait=false"}
	for _, p := range pods {
		args = append(args, p.Metadata.Name)
	}
	_, err := k.do(ctx, args...)
	return err
}
