package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"
)

// The helper's pods, and their Services.
const (
	clientPod = "e2e-client" // idle; commands are executed in it
	sourcePod = "e2e-source"
	proxyPod  = "e2e-proxy"

	helperProgram = "/usr/local/bin/e2e"
	helperLabel   = "vitrine.io/e2e" // of the namespace and of the helper's objects
)

//go:embed helper.yaml
var helperText string

// helper describes a pod of the helper.
type helper struct {
	Name, Image string
	Args        args
	Port        int // 0: no server
	Health      string
}

// args are written into YAML as JSON.
type args []string

func (a args) String() string {
	text, err := json.Marshal([]string(a))
	if err != nil {
		panic("encode arguments: " + err.Error()) // strings can always be encoded
	}
	return string(text)
}

// manifests returns the pod and, if it serves, its Service.
func (h helper) manifests() (string, error) {
	tmpl, err := template.New("helper").Parse(helperText)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = tmpl.Execute(&out, h)
	return out.String(), err
}

// startHelper runs a pod and waits until it is ready. It replaces a pod of the same name.
func (s *harness) startHelper(ctx context.Context, h helper) error {
	h.Image = s.options.helper
	text, err := h.manifests()
	if err != nil {
		return err
	}
	if _, err := s.kube.do(ctx, "delete", "pod", h.Name, "--ignore-not-found", "--wait"); err != nil {
		return err
	}
	if err := s.kube.apply(ctx, text); err != nil {
		return err
	}
	return until(ctx, "pod "+h.Name, 2*time.Minute, time.Second, func(ctx context.Context) error {
		var p pod
		if err := s.kube.get(ctx, &p, "pod", h.Name); err != nil {
			return err
		}
		if !p.ready() {
			return fmt.Errorf("it is %s, not ready", p.Status.Phase)
		}
		return nil
	})
}

// url returns the URL of a helper's Service. It resolves in every namespace.
func (s *harness) url(pod string) string { return "http://" + s.host(pod) }

func (s *harness) host(pod string) string { return pod + "." + s.kube.namespace + ".svc" }

// client runs burst or load in the client pod and returns its tally.
func (s *harness) client(ctx context.Context, stdin *input, args ...string) (tally, error) {
	full := []string{args[0], "-source", s.url(sourcePod)}
	text, err := s.kube.exec(ctx, stdin.reader(), append(full, args[1:]...)...)
	if err != nil {
		return tally{}, err
	}
	var t tally
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return tally{}, fmt.Errorf("read tally %q: %w", text, err)
	}
	return t, nil
}

// burst posts products through the API's Service. It returns an error if a request or an image failed.
func (s *harness) burst(ctx context.Context, args ...string) (tally, error) {
	t, err := s.client(ctx, nil, append([]string{"burst", "-api", s.api()}, args...)...)
	if err != nil {
		return t, err
	}
	return t, t.checkAll()
}
