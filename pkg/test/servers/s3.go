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

// The keys of a store that nobody outside this machine can reach.
const (
	s3Region    = "us-east-1"
	s3AccessKey = "vitrine"
	s3SecretKey = "vitrine-secret"
	s3Pause     = 2 * time.Second // bounds one question whether the store is up
)

// Bucket is a place in an S3 store and what opens it.
type Bucket struct {
	Endpoint  string // a URL; buckets are in its path
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
}

// buildS3 describes a MinIO on one directory.
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
		Quit: syscall.SIGTERM, Orphan: syscall.SIGKILL, StopTimeout: stopPatience, ForkThread: n,
	}
	s := &server{name: "minio", addrs: []string{listen.Addr()}, procs: []*process.Process{p}}
	s.ready = func(ctx context.Context) error { return askS3(ctx, s.addrs[0]) }
	return s, nil
}

// minioProgram is what make deps-test builds.
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

// s3Value is what the variable holds.
func s3Value(s *server) string {
	value, err := json.Marshal(Bucket{ //nolint:gosec // the keys are in this file for all to read
		Endpoint: "http://" + s.addrs[0], Region: s3Region, AccessKey: s3AccessKey, SecretKey: s3SecretKey,
	})
	if err != nil {
		panic(err) // a struct of strings
	}
	return string(value)
}

// askS3 returns nil once the store serves.
func askS3(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, s3Pause)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/minio/health/ready", nil)
	if err != nil {
		return err
	}
	return roundTrip(req, http.StatusOK)
}

// removeBucket deletes a bucket with everything in it, by one request of MinIO's own. That it was never made is fine.
func removeBucket(ctx context.Context, b Bucket) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, b.Endpoint+"/"+b.Bucket, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Minio-Force-Delete", "true")
	nothing := sha256.Sum256(nil)
	hash := hex.EncodeToString(nothing[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	keys := aws.Credentials{AccessKeyID: b.AccessKey, SecretAccessKey: b.SecretKey}
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hash, "s3", b.Region, time.Now()); err != nil {
		return fmt.Errorf("sign request: %w", err)
	}
	return roundTrip(req, http.StatusNoContent, http.StatusNotFound)
}

// roundTrip sends a request on a connection of its own, which leaves no goroutine behind, and wants one of the statuses.
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
