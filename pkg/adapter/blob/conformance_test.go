package blob_test

import (
	"testing"
	"time"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/platform/devstack"
	"vitrine.io/pkg/test/blobtest"
	"vitrine.io/pkg/test/servers"
)

var _ worker.Objects = (*blob.Bucket)(nil)

func TestMain(m *testing.M) { servers.Main(m) }

// settings returns the configuration of a store with static keys.
func settings(endpoint, bucket string) blob.Config {
	return blob.Config{
		Endpoint: endpoint, Region: "us-east-1", Bucket: bucket, AccessKey: "vitrine", SecretKey: "vitrine-secret",
		PathStyle: true, AttemptTimeout: 30 * time.Second, MaxAttempts: 3,
	}
}

func TestConformanceMinIO(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t testing.TB) blob.Config {
		t.Helper()
		at := servers.S3(t)
		cfg := settings(at.Endpoint, at.Bucket)
		cfg.OriginalsBucket = servers.S3(t).Bucket
		cfg.Region, cfg.AccessKey, cfg.SecretKey = at.Region, at.AccessKey, at.SecretKey
		return cfg
	})
}

func TestConformanceStandIn(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t testing.TB) blob.Config {
		t.Helper()
		server, err := devstack.StartS3(devstack.S3Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		cfg := settings(server.Endpoint(), "images")
		cfg.OriginalsBucket = "originals"
		return cfg
	})
}
