package servers

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/process"
)

// Kubernetes is an API server with its etcd, without nodes and controllers: it only keeps objects. Its users are bound by
// RBAC, except for the administrator.
type Kubernetes struct {
	URL   string
	CA    []byte // PEM
	Token string // of the administrator
	Audit string // file with one audit event in JSON for each complete request
}

const kubernetesTimeout = 5 * time.Second // of one check

// auditPolicy records every request, once it is complete.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
	"rules": [{"level": "Metadata"}]}`

// KubernetesAPI returns the shared API server. Its programs are those in KUBEBUILDER_ASSETS, or else those that make
// deps-test builds. A test creates a namespace of its own.
func KubernetesAPI(t testing.TB) Kubernetes {
	t.Helper()
	var k Kubernetes
	if err := json.Unmarshal([]byte(need(t, shared.kubernetes)), &k); err != nil {
		t.Fatalf("servers: read %s: %v", envKubernetes, err)
	}
	return k
}

// buildKubernetes describes an etcd and an API server.
func buildKubernetes(dir *workDir, n *process.ForkThread) (*server, error) {
	etcd, err := kubernetesProgram("etcd", os.Getenv)
	if err != nil {
		return nil, err
	}
	api, err := kubernetesProgram("kube-apiserver", os.Getenv)
	if err != nil {
		return nil, err
	}
	home, err := dir.sub("kubernetes-", nil)
	if err != nil {
		return nil, err
	}
	client, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	peer, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	secure, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	token, err := writeKubernetesFiles(home)
	if err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(home, name) }
	etcdURL, peerURL := "http://"+client.Addr(), "http://"+peer.Addr()
	start := func(name string, quit syscall.Signal, argv ...string) *process.Process {
		return &process.Process{
			Name: name, Argv: argv, Dir: home, Log: filepath.Join(dir.path, filepath.Base(home)+"-"+name+".log"),
			Quit: quit, Orphan: syscall.SIGKILL, StopTimeout: stopTimeout, ForkThread: n,
		}
	}
	s := &server{name: "kubernetes", addrs: []string{secure.Addr(), home, token}, procs: []*process.Process{
		start("etcd", syscall.SIGTERM, etcd, "--data-dir", file("etcd"), "--listen-client-urls", etcdURL,
			"--advertise-client-urls", etcdURL, "--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
			"--initial-cluster", "default="+peerURL, "--unsafe-no-fsync"),
		// It would wait for etcd, which stops at the same time.
		start("kube-apiserver", syscall.SIGKILL, api, "--etcd-servers", etcdURL, "--cert-dir", home, "--bind-address", "127.0.0.1",
			"--secure-port", fmt.Sprint(secure.Port), "--authorization-mode", "RBAC", "--token-auth-file", file("tokens.csv"),
			"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", file("key.pem"),
			"--service-account-signing-key-file", file("key.pem"), "--service-cluster-ip-range", "10.0.0.0/24",
			"--disable-admission-plugins", "ServiceAccount", "--audit-policy-file", file("audit.yaml"),
			"--audit-log-path", file("audit.log"), "--audit-log-mode", "blocking"),
	}}
	s.ready = func(ctx context.Context) error { return kubernetesReady(ctx, s) }
	return s, nil
}

// writeKubernetesFiles writes the files that the API server reads, and returns the administrator's token.
func writeKubernetesFiles(home string) (admin string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", fmt.Errorf("generate key: %w", err)
	}
	admin = token()
	for name, content := range map[string][]byte{
		"key.pem":    pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"tokens.csv": []byte(admin + ",admin,admin,system:masters\n"),
		"audit.yaml": []byte(auditPolicy),
	} {
		if err := os.WriteFile(filepath.Join(home, name), content, 0o600); err != nil {
			return "", fmt.Errorf("write file of the API server: %w", err)
		}
	}
	return admin, nil
}

// kubernetesProgram returns the path of a program: in KUBEBUILDER_ASSETS, in the cache, or in the PATH.
func kubernetesProgram(name string, getenv func(string) string) (string, error) {
	if dir := getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	cache, err := cacheDir(getenv)
	if err != nil {
		return "", err
	}
	if program := filepath.Join(cache, "bin", name); fileExists(program) {
		return program, nil
	}
	return lookup(name)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// kubernetesValue returns the value of the environment variable. The certificate exists once the server is ready.
func kubernetesValue(s *server) string {
	addr, home, token := s.addrs[0], s.addrs[1], s.addrs[2]
	ca, err := os.ReadFile(filepath.Join(home, "apiserver.crt"))
	if err != nil {
		panic(err) // the server has written it
	}
	value, err := json.Marshal(Kubernetes{
		URL: "https://" + addr, CA: ca, Token: token, Audit: filepath.Join(home, "audit.log"),
	})
	if err != nil {
		panic(err) // a struct of strings and bytes
	}
	return string(value)
}

// kubernetesReady returns nil if the API server is ready, with the roles that it creates at its start.
func kubernetesReady(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.addrs[0]+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.addrs[2])
	req.Close = true
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it signs its certificate itself
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API server is not ready: %s", resp.Status)
	}
	return nil
}
