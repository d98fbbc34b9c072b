package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"vitrine.io/pkg/foundation/process"
)

// The keys are no secret: the store listens only on the loopback interface.
const (
	s3Region    = "us-east-1"
	s3AccessKey = "vitrine"
	s3SecretKey = "vitrine-secret"
	s3Timeout   = 2 * time.Second // of one health check
)

// Bucket is a bucket of an S3 store, with the store's address and keys.
type Bucket struct {
	Endpoint  string // a URL; the bucket is the first part of the path
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
}

// buildS3 describes a MinIO with one directory.
func buildS3(dir *workDir, n *process.ForkThread) (*server, error) {
	program, err := minioProgram(os.Getenv)
	if err != nil {
		return nil, err
	}
	home, err := dir.sub("minio-", nil)
	if err != nil {
		return nil, err
	}
	listen, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	console, err := dir.reserve()
	if err != nil {
		return nil, err
	}
	p := &process.Process{
		Name: "minio",
		Argv: []string{
			program, "server", "--quiet", "--address", listen.Addr(), "--console-address", console.Addr(),
			"--config-dir", filepath.Join(home, "config"), filepath.Join(home, "data"),
		},
		Env: append(os.Environ(),
			"MINIO_ROOT_USER="+s3AccessKey, "MINIO_ROOT_PASSWORD="+s3SecretKey,
			"MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_CALLHOME_ENABLE=off"),
		Dir: home, Log: filepath.Join(dir.path, filepath.Base(home)+".log"),
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopTimeout, ForkThread: n,
	}
	s := &server{name: "minio", addrs: []string{listen.Addr()}, procs: []*process.Process{p}}
	s.ready = func(ctx context.Context) error { return pingS3(ctx, s.addrs[0]) }
	return s, nil
}

// minioProgram returns the path of the program that make deps-test builds.
func minioProgram(getenv func(string) string) (string, error) {
	cache, err := cacheDir(getenv)
	if err != nil {
		return "", err
	}
	program := filepath.Join(cache, "bin", "minio")
	if _, err := os.Stat(program); err != nil {
		return "", missing("MinIO (" + program + ")")
	}
	return program, nil
}

// s3Value returns the value of the environment variable.
func s3Value(s *server) string {
	value, err := json.Marshal(Bucket{ //nolint:gosec // the keys are no secret, see above
		Endpoint: "http://" + s.addrs[0], Region: s3Region, AccessKey: s3AccessKey, SecretKey: s3SecretKey,
	})
	if err != nil {
		panic(err) // a struct of strings
	}
	return string(value)
}

// pingS3 returns nil if the store is ready.
func pingS3(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, s3Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/minio/health/ready", nil)
	if err != nil {
		return err
	}
	return roundTrip(req, http.StatusOK)
}

// removeBucket deletes a bucket with all its objects, by a request that only MinIO has. A missing bucket is not an error.
func removeBucket(ctx context.Context, b Bucket) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, b.Endpoint+"/"+b.Bucket, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Minio-Force-Delete", "true")
	empty := sha256.Sum256(nil)
	hash := hex.EncodeToString(empty[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	keys := aws.Credentials{AccessKeyID: b.AccessKey, SecretAccessKey: b.SecretKey}
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hash, "s3", b.Region, time.Now()); err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	return roundTrip(req, http.StatusNoContent, http.StatusNotFound)
}

// roundTrip sends a request on a new connection, which leaves no goroutine, and returns an error for any status not in want.
func roundTrip(req *http.Request, want ...int) error {
	req.Close = true
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for _, status := range want {
		if resp.StatusCode == status {
			return nil
		}
	}
	return fmt.Errorf("%s %s: status %s", req.Method, req.URL.Path, resp.Status)
}
